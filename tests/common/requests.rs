//! Requests made up from their schemas: well formed, and with anything in them.

use kafka_protocol::messages::ApiKey;

const SCHEMAS: &str = include_str!("../../protocol/src/requests.txt");

/// One request in one version; [`Schema::body`] makes one up.
pub(crate) struct Schema {
    pub(crate) key: i16,
    flexible: i16,
    fields: Vec<Field>,
}

struct Field {
    name: &'static str,
    /// As in the schema: `int32`, `[]string`, `[]TopicData`.
    kind: &'static str,
    versions: Versions,
    nullable: Option<Versions>,
    is_tagged: bool,
    fields: Vec<Field>,
}

#[derive(Clone, Copy)]
struct Versions(i16, i16);

/// Small, seeded, and good enough to make things up.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % bound.max(1)
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("a byte")
    }
}

impl Versions {
    fn parse(text: &str) -> Versions {
        match (text.strip_suffix('+'), text.split_once('-')) {
            (Some(from), _) => Versions(from.parse().expect("a version"), i16::MAX),
            (None, Some((from, to))) => {
                Versions(from.parse().expect("one"), to.parse().expect("another"))
            }
            (None, None) => Versions(text.parse().expect("a version"), text.parse().expect("it")),
        }
    }

    fn has(self, version: i16) -> bool {
        (self.0..=self.1).contains(&version)
    }
}

/// All there are.
pub(crate) fn schemas() -> Vec<Schema> {
    let mut lines: Vec<&str> = SCHEMAS.lines().rev().collect();
    let mut schemas = Vec::new();
    while let Some(line) = lines.pop() {
        let Some(title) = line.strip_prefix("## ") else {
            continue;
        };
        let words: Vec<&str> = title.split(' ').filter(|word| !word.is_empty()).collect();
        let after = |name| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1).copied()
        };
        let key = after("key").expect("a key");
        let flexible = match after("flexible") {
            None | Some("none") => i16::MAX,
            Some(from) => Versions::parse(from).0,
        };
        schemas.push(Schema {
            key: key.parse().expect("a number"),
            flexible,
            fields: fields(&mut lines, 0),
        });
    }
    schemas
}

fn fields(lines: &mut Vec<&'static str>, indent: usize) -> Vec<Field> {
    let mut found = Vec::new();
    let is_here = |line: &mut &str| {
        line.contains(": ")
            && !line.starts_with('#')
            && line.len() - line.trim_start().len() == indent
    };
    while let Some(line) = lines.pop_if(is_here) {
        let (name, rest) = line.trim_start().split_once(": ").expect("a name");
        let words: Vec<&str> = rest.split_whitespace().collect();
        let nullable = words.iter().position(|word| *word == "nullable");
        found.push(Field {
            name,
            kind: words[0],
            versions: Versions::parse(words[1]),
            nullable: nullable.map(|at| Versions::parse(words[at + 1])),
            is_tagged: words.contains(&"tag"),
            fields: fields(lines, indent + 2),
        });
    }
    found
}

impl Schema {
    /// A request frame without its size: header and body.
    pub(crate) fn frame(&self, version: i16, random: &mut Random) -> Vec<u8> {
        let key = ApiKey::try_from(self.key).expect("a key");
        let mut out = Vec::new();
        out.extend(self.key.to_be_bytes());
        out.extend(version.to_be_bytes());
        out.extend(7i32.to_be_bytes());
        out.extend([0, 1, b't']);
        if key.request_header_version(version) == 2 {
            out.push(0);
        }
        let is_flexible = self.flexible <= version;
        write_fields(&mut out, &self.fields, version, is_flexible, random);
        out
    }
}

fn write_fields(
    out: &mut Vec<u8>,
    fields: &[Field],
    version: i16,
    is_flexible: bool,
    random: &mut Random,
) {
    for field in fields {
        if field.is_tagged && is_flexible || !field.versions.has(version) {
            continue;
        }
        let may_be_null = field.nullable.is_some_and(|versions| versions.has(version));
        let is_null = may_be_null && random.below(4) == 0;
        let (is_array, kind) = match field.kind.strip_prefix("[]") {
            Some(element) => (true, element),
            None => (false, field.kind),
        };
        let width = if !is_array && kind == "string" { 2 } else { 4 };
        if is_array {
            let count = random.below(3);
            put_size(
                out,
                if is_null { None } else { Some(count) },
                width,
                is_flexible,
            );
            for _ in 0..if is_null { 0 } else { count } {
                write_value(out, field, kind, version, is_flexible, random);
            }
        } else if is_null && matches!(kind, "string" | "bytes" | "records") {
            put_size(out, None, width, is_flexible);
        } else if may_be_null && !field.fields.is_empty() {
            out.push(if is_null { 0xff } else { 1 });
            if !is_null {
                write_value(out, field, kind, version, is_flexible, random);
            }
        } else {
            write_value(out, field, kind, version, is_flexible, random);
        }
    }
    if is_flexible {
        // Now and then one that nobody knows.
        match random.below(5) {
            0 => out.extend([1, 99, 2, 7, 7]),
            _ => out.push(0),
        }
    }
}

fn write_value(
    out: &mut Vec<u8>,
    field: &Field,
    kind: &str,
    version: i16,
    is_flexible: bool,
    random: &mut Random,
) {
    // What is waited for must end soon; an acknowledgement that is not wanted does not come; and the broker
    // that is to be unregistered is not this one.
    let number: i64 = match field.name.to_ascii_lowercase() {
        name if name.ends_with("ms") => random.one_of(&[-1, 0, 1, 20]),
        name if name == "acks" => random.one_of(&[-1, 1, 7]),
        name if name == "brokerid" => random.one_of(&[-1, 0, 99]),
        _ => random.one_of(&[-2, -1, 0, 0, 1, 1, 2, 3, 100, i64::MAX, i64::MIN]),
    };
    let clamped = |min: i64, max: i64| number.clamp(min, max).to_be_bytes();
    match kind {
        "bool" => out.push(random.one_of(&[0, 1])),
        "int8" => out.extend(&clamped(i8::MIN.into(), i8::MAX.into())[7..]),
        "int16" => out.extend(&clamped(i16::MIN.into(), i16::MAX.into())[6..]),
        "uint16" => out.extend(&clamped(0, u16::MAX.into())[6..]),
        "int32" => out.extend(&clamped(i32::MIN.into(), i32::MAX.into())[4..]),
        "uint32" => out.extend(&clamped(0, u32::MAX.into())[4..]),
        "int64" => out.extend(number.to_be_bytes()),
        "float64" => out.extend(random.one_of(&[0.0, 1.5, f64::NAN]).to_be_bytes()),
        "uuid" => out.extend([random.one_of(&[0, 1, 0xff]); 16]),
        "string" => {
            let text =
                random.one_of(&["", "t", "1", "group", "retention.ms", "a/b", "\u{e9}\u{0}"]);
            put_size(out, Some(text.len()), 2, is_flexible);
            out.extend(text.as_bytes());
        }
        "bytes" | "records" => {
            let bytes = match random.below(3) {
                0 => super::batch(&["x", "y"]).to_vec(),
                1 => Vec::new(),
                _ => (0..random.below(90)).map(|_| random.byte()).collect(),
            };
            put_size(out, Some(bytes.len()), 4, is_flexible);
            out.extend(bytes);
        }
        _ => write_fields(out, &field.fields, version, is_flexible, random),
    }
}

fn put_size(out: &mut Vec<u8>, size: Option<usize>, width: usize, is_flexible: bool) {
    if is_flexible {
        let mut rest = size.map_or(0, |size| size + 1);
        while 128 <= rest {
            out.push(u8::try_from(rest % 128).expect("seven bits") | 128);
            rest /= 128;
        }
        out.push(u8::try_from(rest).expect("seven bits"));
        return;
    }
    let size = size.map_or(-1, |size| i32::try_from(size).expect("small"));
    out.extend(&size.to_be_bytes()[4 - width..]);
}
