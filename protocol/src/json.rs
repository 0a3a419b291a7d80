//! Records as Kafka's tools show them: JSON, with the names and in the order of Kafka's schemas.
//!
//! Strings, numbers and bytes are written as Kafka's JSON library writes them, so that what is printed can be compared
//! byte for byte: no spaces, control characters escaped and nothing else, bytes in base 64.

use std::fmt::{self, Write};

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Bytes),
    Array(Vec<Json>),
    /// In the order in which it is written.
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
        let own = |(name, value): (&str, Json)| (name.to_owned(), value);
        Json::Object(members.map(own).into())
    }

    pub fn text(text: impl Into<String>) -> Json {
        Json::Text(text.into())
    }

    /// The value of a member of an object.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Json> {
        let Json::Object(members) = self else {
            return None;
        };
        let member = members.iter_mut().find(|(known, _)| known == name);
        member.map(|(_, value)| value)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Int(value) => write!(f, "{value}"),
            Json::Float(value) => write_float(*value, f),
            Json::Text(text) => write_text(text, f),
            Json::Bytes(bytes) => write!(f, "\"{}\"", base64(bytes, STANDARD, true)),
            Json::Array(elements) => {
                f.write_char('[')?;
                for (at, element) in elements.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{element}")?;
                }
                f.write_char(']')
            }
            Json::Object(members) => {
                f.write_char('{')?;
                for (at, (name, value)) in members.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    f.write_str(comma)?;
                    write_text(name, f)?;
                    write!(f, ":{value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\u{8}' => f.write_str("\\b")?,
            '\t' => f.write_str("\\t")?,
            '\n' => f.write_str("\\n")?,
            '\u{c}' => f.write_str("\\f")?,
            '\r' => f.write_str("\\r")?,
            '\0'..' ' => write!(f, "\\u{:04X}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// As Java prints a double: digits where the number is neither large nor small, and always a fraction.
fn write_float(value: f64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let size = value.abs();
    if value.is_nan() {
        return f.write_str("\"NaN\"");
    }
    if value.is_infinite() {
        let sign = if value < 0.0 { "-" } else { "" };
        return write!(f, "\"{sign}Infinity\"");
    }
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        return write!(f, "{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let fraction = if digits.contains('.') { "" } else { ".0" };
    write!(f, "{digits}{fraction}E{exponent}")
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const IN_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64(bytes: &[u8], alphabet: &[u8; 64], padded: bool) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            // So many digits as it takes to say these bytes.
            if at <= chunk.len() {
                let digit = (bits >> (18 - 6 * at)) & 63;
                out.push(char::from(alphabet[digit as usize]));
            } else if padded {
                out.push('=');
            }
        }
    }
    out
}

/// `leader_epoch` as Kafka's schemas have it: `leaderEpoch`.
pub(crate) fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut rest = word.chars();
        camel.extend(rest.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(rest.as_str());
    }
    camel
}

macro_rules! from {
    ($($ty:ty: $variant:ident,)*) => {
        $(impl From<$ty> for Json {
            fn from(value: $ty) -> Json {
                Json::$variant(value.into())
            }
        })*
    };
}

from! {
    bool: Bool,
    i8: Int,
    i16: Int,
    u16: Int,
    i32: Int,
    i64: Int,
    f64: Float,
    String: Text,
    Bytes: Bytes,
}

impl From<StrBytes> for Json {
    fn from(text: StrBytes) -> Json {
        Json::text(text.as_str())
    }
}

impl From<Uuid> for Json {
    fn from(id: Uuid) -> Json {
        Json::Text(base64(id.as_bytes(), IN_URLS, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_kafkas_library_writes_them() {
        for (value, want) in [
            (Json::Null, "null"),
            (Json::from(true), "true"),
            (Json::from(i64::MIN), "-9223372036854775808"),
            (
                Json::text("a\"\\/\u{1f}\u{7f}\n\t\u{8}\u{c}\rgrün😀"),
                "\"a\\\"\\\\/\\u001F\u{7f}\\n\\t\\b\\f\\rgrün😀\"",
            ),
            (Json::from(Bytes::new()), "\"\""),
            (Json::from(Bytes::from_static(b"\xff\xfe")), "\"//4=\""),
            (Json::from(Bytes::from_static(b"abcd")), "\"YWJjZA==\""),
            (Json::from(Bytes::from_static(b"abc")), "\"YWJj\""),
            (Json::from(Uuid::nil()), "\"AAAAAAAAAAAAAAAAAAAAAA\""),
            (
                Json::from(Uuid::from_u128(u128::MAX)),
                "\"_____________________w\"",
            ),
            (Json::Array(vec![]), "[]"),
            (Json::Array(vec![1.into(), 2.into()]), "[1,2]"),
            (
                Json::object([("a", Json::Null), ("b", Json::object([]))]),
                "{\"a\":null,\"b\":{}}",
            ),
        ] {
            assert_eq!(value.to_string(), want);
        }
    }

    #[test]
    fn a_float_is_written_as_java_writes_it() {
        for (value, want) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (1_024_000.5, "1024000.5"),
            (9_999_999.0, "9999999.0"),
            (10_000_000.0, "1.0E7"),
            (123_456_789.0, "1.23456789E8"),
            (0.001, "0.001"),
            (0.000_25, "2.5E-4"),
        ] {
            assert_eq!(Json::from(value).to_string(), want);
        }
    }
}
