//! A request's bytes, walked by its schema before the codec sees them.
//!
//! The codec reserves memory for as many elements as an array claims to have before it looks at
//! how many bytes are left: twenty bytes could ask for hundreds of gigabytes. So counts are
//! checked here, against the bytes that are there and against Kafka's own limits (a million
//! elements, ten thousand tagged fields), without building anything.
//!
//! Kafka takes any negative size for null; the codec knows only -1. The walk tells where such sizes are.
//!
//! The schemas are `requests.txt`, in the notation in which Kafka's are published; they are parsed
//! once. Only what decides where the next field starts is kept: the walk accepts some things that
//! the codec then refuses, such as null where a value must be.

use std::{collections::HashMap, sync::LazyLock};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;

use crate::{error::DecodeError, varint, varint::Malformed, versions::Range};

/// Kafka since 4.4 refuses larger arrays, wherever they are.
const ELEMENTS_MAX: usize = 1_000_000;

/// The same for the tagged fields of one struct.
const TAGGED_FIELDS_MAX: u32 = 10_000;

/// Sizes below -1 in one request. No client sends any.
const NEGATIVE_MAX: usize = 1000;

static REQUESTS: LazyLock<HashMap<i16, Shape>> =
    LazyLock::new(|| parse(include_str!("requests.txt")));

/// Where a size below -1 is, and how many bytes it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Negative {
    at: usize,
    width: usize,
}

/// Walks `body`, a request without its header. Bytes after it are not looked at. Returns the sizes that
/// [`with_nulls`] must rewrite for the codec.
pub(crate) fn check(key: ApiKey, version: i16, body: &[u8]) -> Result<Vec<Negative>, DecodeError> {
    let shape = REQUESTS
        .get(&(key as i16))
        .ok_or_else(|| DecodeError::new(format!("{key:?} has no schema")))?;
    let mut walk = Walk {
        rest: body,
        version,
        flexible: version >= shape.flexible,
        size: body.len(),
        negative: Vec::new(),
    };
    walk.fields(&shape.fields)?;
    Ok(walk.negative)
}

/// The same body with -1 for each of these sizes.
pub(crate) fn with_nulls(body: &[u8], negative: &[Negative]) -> Bytes {
    let mut body = BytesMut::from(body);
    for size in negative {
        body[size.at..size.at + size.width].fill(0xff);
    }
    body.freeze()
}

/// Skips the tagged fields at the end of a request header.
pub(crate) fn skip_tagged_fields(rest: &mut &[u8]) -> Result<(), DecodeError> {
    let mut walk = Walk {
        rest,
        version: 0,
        flexible: true,
        size: rest.len(),
        negative: Vec::new(),
    };
    walk.tagged(&[])?;
    *rest = walk.rest;
    Ok(())
}

#[derive(Debug)]
struct Shape {
    /// From this version on sizes are varints and structs end with tagged fields.
    flexible: i16,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    versions: Range,
    tag: Option<u32>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Fixed(usize),
    String,
    Bytes,
    Struct(Vec<Field>),
    /// A byte says whether it is there: 1, or -1.
    Nullable(Vec<Field>),
    Array(Box<Kind>),
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    /// Of the whole body.
    size: usize,
    negative: Vec<Negative>,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &[Field]) -> Result<(), DecodeError> {
        for field in fields {
            if field.tag.is_none() && field.versions.contains(self.version) {
                self.value(field.name, &field.kind)?;
            }
        }
        if self.flexible {
            self.tagged(fields)
        } else {
            Ok(())
        }
    }

    fn value(&mut self, name: &str, kind: &Kind) -> Result<(), DecodeError> {
        match kind {
            Kind::Fixed(size) => self.skip(name, *size),
            Kind::String => {
                let size = self.size(name, 2)?.unwrap_or(0);
                // A compact string could be longer, but Kafka reads none that is.
                if size > i16::MAX as usize {
                    return Err(DecodeError::new(format!("{name} is {size} bytes long")));
                }
                self.skip(name, size)
            }
            Kind::Bytes => {
                let size = self.size(name, 4)?;
                self.skip(name, size.unwrap_or(0))
            }
            Kind::Struct(fields) => self.fields(fields),
            // Kafka takes any byte for one or the other, by its sign. The codec does not, and must
            // not see the rest of the request at another place than this walk.
            Kind::Nullable(fields) => match self.byte(name)?.cast_signed() {
                -1 => Ok(()),
                1 => self.fields(fields),
                other => Err(DecodeError::new(format!(
                    "{name} is neither null nor there: {other}"
                ))),
            },
            Kind::Array(element) => {
                let count = self.size(name, 4)?.unwrap_or(0);
                // An element takes at least a byte.
                if count > self.rest.len() || count > ELEMENTS_MAX {
                    return Err(DecodeError::new(format!(
                        "{name} claims {count} elements, {} bytes are left",
                        self.rest.len()
                    )));
                }
                (0..count).try_for_each(|_| self.value(name, element))
            }
        }
    }

    fn tagged(&mut self, fields: &[Field]) -> Result<(), DecodeError> {
        let count = self.varint("tagged fields")?;
        if count > TAGGED_FIELDS_MAX {
            return Err(DecodeError::new(format!(
                "{count} tagged fields in one struct"
            )));
        }
        for _ in 0..count {
            let tag = self.varint("a tag")?;
            // Nobody numbers a field so; the codec takes such a tag for a negative one.
            if i32::try_from(tag).is_err() {
                return Err(DecodeError::new(format!("a field with tag {tag}")));
            }
            let size = self.varint("a tagged field")? as usize;
            let Some((value, rest)) = self.rest.split_at_checked(size) else {
                return Err(too_short("a tagged field"));
            };
            let known = fields
                .iter()
                .find(|field| field.tag == Some(tag) && field.versions.contains(self.version));
            if let Some(field) = known {
                let mut walk = Walk {
                    rest: value,
                    version: self.version,
                    flexible: self.flexible,
                    size: value.len(),
                    // Only what is not flexible has any, and that has no tagged fields.
                    negative: Vec::new(),
                };
                walk.value(field.name, &field.kind)?;
                if !walk.rest.is_empty() {
                    return Err(DecodeError::new(format!(
                        "{} is shorter than its tag says",
                        field.name
                    )));
                }
            }
            self.rest = rest;
        }
        Ok(())
    }

    /// A size or count, of `width` bytes where it is not a varint; `None` is null.
    fn size(&mut self, name: &str, width: usize) -> Result<Option<usize>, DecodeError> {
        let at = self.size - self.rest.len();
        let size = if self.flexible {
            i64::from(self.varint(name)?) - 1
        } else if width == 2 {
            i64::from(i16::from_be_bytes(self.take(name)?))
        } else {
            i64::from(i32::from_be_bytes(self.take(name)?))
        };
        match size {
            -1 => Ok(None),
            ..-1 if self.negative.len() < NEGATIVE_MAX => {
                self.negative.push(Negative { at, width });
                Ok(None)
            }
            size => usize::try_from(size)
                .map(Some)
                .map_err(|_| DecodeError::new(format!("{name} has size {size}"))),
        }
    }

    fn varint(&mut self, name: &str) -> Result<u32, DecodeError> {
        varint::unsigned(|| self.byte(name))
    }

    fn byte(&mut self, name: &str) -> Result<u8, DecodeError> {
        self.take(name).map(|[byte]| byte)
    }

    fn take<const N: usize>(&mut self, name: &str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| too_short(name))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn skip(&mut self, name: &str, size: usize) -> Result<(), DecodeError> {
        self.rest = self.rest.get(size..).ok_or_else(|| too_short(name))?;
        Ok(())
    }
}

fn too_short(name: &str) -> DecodeError {
    DecodeError::new(format!("the request ends inside {name}"))
}

impl From<Malformed> for DecodeError {
    fn from(_: Malformed) -> DecodeError {
        DecodeError::new("a varint does not end")
    }
}

// What follows reads `requests.txt`, which is part of this program: it panics where that is wrong,
// and a test reads it.

fn parse(text: &'static str) -> HashMap<i16, Shape> {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).rev().collect();
    let mut shapes = HashMap::new();
    while let Some(line) = lines.pop() {
        let Some(title) = line.strip_prefix("## ") else {
            continue;
        };
        let words: Vec<&str> = title.split_whitespace().collect();
        let after = |name| {
            words
                .iter()
                .skip_while(|word| **word != name)
                .nth(1)
                .copied()
        };
        let key = after("key")
            .and_then(|key| key.parse().ok())
            .expect("a key");
        let flexible = after("flexible").map_or(i16::MAX, |from| range(from).min);
        shapes.insert(
            key,
            Shape {
                flexible,
                fields: parse_fields(&mut lines, 0),
            },
        );
    }
    shapes
}

/// Takes the fields at the end of `lines` (they are in reverse) with this indentation.
fn parse_fields(lines: &mut Vec<&'static str>, indent: usize) -> Vec<Field> {
    let mut fields = Vec::new();
    while let Some(line) = lines
        .pop_if(|line| !line.starts_with('#') && line.len() - line.trim_start().len() == indent)
    {
        let (name, rest) = line
            .trim_start()
            .split_once(": ")
            .expect("a name and a type");
        let words: Vec<&str> = rest.split_whitespace().collect();
        let nested = parse_fields(lines, indent + 2);
        let element = words[0].trim_start_matches("[]");
        let scalar = |kind: &str| match kind {
            "bool" | "int8" => Some(Kind::Fixed(1)),
            "int16" | "uint16" => Some(Kind::Fixed(2)),
            "int32" | "uint32" => Some(Kind::Fixed(4)),
            "int64" | "float64" => Some(Kind::Fixed(8)),
            "uuid" => Some(Kind::Fixed(16)),
            "string" => Some(Kind::String),
            "bytes" | "records" => Some(Kind::Bytes),
            _ => None,
        };
        let is_array = words[0].starts_with("[]");
        let kind = match scalar(element) {
            Some(kind) => kind,
            None if !is_array && words.contains(&"nullable") => Kind::Nullable(nested),
            None => Kind::Struct(nested),
        };
        let kind = if is_array {
            Kind::Array(Box::new(kind))
        } else {
            kind
        };
        let tag = words
            .iter()
            .skip_while(|word| **word != "tag")
            .nth(1)
            .map(|tag| {
                let (tag, _) = tag.split_once('@').expect("a tag and its versions");
                tag.parse().expect("a tag")
            });
        fields.push(Field {
            name,
            versions: range(words[1]),
            tag,
            kind,
        });
    }
    fields
}

/// `3+`, `0-12` or `7`.
fn range(versions: &str) -> Range {
    let number = |text: &str| text.parse().expect("a version");
    if let Some(from) = versions.strip_suffix('+') {
        Range {
            min: number(from),
            max: i16::MAX,
        }
    } else if let Some((from, to)) = versions.split_once('-') {
        Range {
            min: number(from),
            max: number(to),
        }
    } else {
        Range {
            min: number(versions),
            max: number(versions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versions::SERVED;

    #[test]
    fn every_api_served_has_a_schema_and_agrees_on_where_it_becomes_flexible() {
        for (key, range) in SERVED {
            let shape = &REQUESTS[&(*key as i16)];
            for version in range.min..=range.max {
                let flexible = key.request_header_version(version) == 2;
                assert_eq!(version >= shape.flexible, flexible, "{key:?} v{version}");
            }
        }
        assert_eq!(REQUESTS.len(), SERVED.len());
    }

    #[test]
    fn a_count_that_cannot_be_true_is_refused() {
        for count in [2, 1_000_001, i32::MAX] {
            let mut body = count.to_be_bytes().to_vec();
            body.push(0);
            let refused = check(ApiKey::Metadata, 1, &body).unwrap_err();
            assert!(refused.to_string().contains("Topics claims"), "{refused}");
        }
    }

    /// Found by fuzzing: the codec takes it for a negative tag, counts it when it encodes and then
    /// leaves it out.
    #[test]
    fn a_tag_beyond_any_field_is_refused() {
        let body = b"\0\x01\xff\xff\xff\xff\x0f\0";
        assert!(check(ApiKey::DescribeCluster, 0, body).is_err());
        assert!(check(ApiKey::DescribeCluster, 0, b"\0\x01\x7f\0").is_ok());
    }

    /// What comes of it is written into records whose strings cannot be longer.
    #[test]
    fn a_compact_string_is_no_longer_than_kafka_reads_one() {
        let heartbeat = |size: u32| {
            let mut body = Vec::new();
            varint::put_unsigned(&mut body, size + 1);
            body.resize(body.len() + size as usize, b'g');
            body.extend_from_slice(b"\0\0\0\x01\x02m\0\0");
            check(ApiKey::Heartbeat, 4, &body).is_ok()
        };
        assert!(heartbeat(i16::MAX as u32));
        assert!(!heartbeat(i16::MAX as u32 + 1));
    }

    /// Found by fuzzing: the codec goes on behind such a byte as if it were -1.
    #[test]
    fn a_struct_that_is_neither_null_nor_there_is_refused() {
        let with_cursor = |present: u8| {
            let body = [1, 0, 0, 0, 9, present, 2, b't', 0, 0, 0, 1, 0, 0];
            check(ApiKey::DescribeTopicPartitions, 0, &body)
        };
        assert!(with_cursor(0).is_err());
        assert!(with_cursor(1).is_ok());
        assert!(
            check(
                ApiKey::DescribeTopicPartitions,
                0,
                &[1, 0, 0, 0, 9, 0xff, 0]
            )
            .is_ok()
        );
    }
}
