//! How a line becomes a record: headers, key and value between separators (pure). The rules are those of Kafka's
//! `LineMessageReader`.

use bytes::Bytes;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Vec<(Bytes, Option<Bytes>)>,
}

impl Record {
    /// Bytes it takes, about.
    pub(super) fn size(&self) -> usize {
        let of = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(key, value)| key.len() + of(value) + 2).sum();
        of(&self.key) + of(&self.value) + headers + 8
    }
}

#[derive(Debug)]
pub(super) struct Format {
    parse_key: bool,
    parse_headers: bool,
    ignore_error: bool,
    key_separator: String,
    headers_delimiter: String,
    headers_separator: String,
    headers_key_separator: String,
    null_marker: Option<String>,
}

impl Default for Format {
    fn default() -> Format {
        Format {
            parse_key: false,
            parse_headers: false,
            ignore_error: false,
            key_separator: "\t".to_owned(),
            headers_delimiter: "\t".to_owned(),
            headers_separator: ",".to_owned(),
            headers_key_separator: ":".to_owned(),
            null_marker: None,
        }
    }
}

impl Format {
    /// Sets one property. Those it does not know are passed over, as Kafka does.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let flag = || match value.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("{key}={value}: true or false is expected")),
        };
        match key {
            "parse.key" => self.parse_key = flag()?,
            "parse.headers" => self.parse_headers = flag()?,
            "ignore.error" => self.ignore_error = flag()?,
            "key.separator" => self.key_separator = value.to_owned(),
            "headers.delimiter" => self.headers_delimiter = value.to_owned(),
            "headers.separator" => self.headers_separator = value.to_owned(),
            "headers.key.separator" => self.headers_key_separator = value.to_owned(),
            "null.marker" => self.null_marker = Some(value.to_owned()),
            _ => (),
        }
        Ok(())
    }

    /// Separators that could not be told apart are refused.
    pub(super) fn check(&self) -> Result<(), String> {
        let same = [
            (
                "headers.delimiter",
                &self.headers_delimiter,
                "headers.separator",
                &self.headers_separator,
            ),
            (
                "headers.delimiter",
                &self.headers_delimiter,
                "headers.key.separator",
                &self.headers_key_separator,
            ),
            (
                "headers.separator",
                &self.headers_separator,
                "headers.key.separator",
                &self.headers_key_separator,
            ),
        ];
        for (first, a, second, b) in same {
            if self.parse_headers && a == b {
                return Err(format!("{first} and {second} may not be equal"));
            }
        }
        let markers = [
            (&self.key_separator, "key.separator"),
            (&self.headers_delimiter, "headers.delimiter"),
            (&self.headers_separator, "headers.separator"),
            (&self.headers_key_separator, "headers.key.separator"),
        ];
        for (separator, name) in markers {
            if self.null_marker.as_ref() == Some(separator) {
                return Err(format!("null.marker and {name} may not be equal"));
            }
        }
        Ok(())
    }

    /// The record of a line; `Err` says what is missing in it.
    pub(super) fn parse(&self, line: &[u8], number: u64) -> Result<Record, String> {
        let mut rest = line;
        let mut headers = Vec::new();
        if self.parse_headers
            && let Some(text) = self.take(
                &mut rest,
                &self.headers_delimiter,
                "headers delimiter",
                line,
                number,
            )?
            && !self.is_null(text)
        {
            headers = self.headers(text, line, number)?;
        }
        let key = match self.parse_key {
            false => None,
            true => self.take(
                &mut rest,
                &self.key_separator,
                "key separator",
                line,
                number,
            )?,
        };
        let bytes = |part: &[u8]| (!self.is_null(part)).then(|| Bytes::copy_from_slice(part));
        Ok(Record {
            key: key.and_then(bytes),
            value: bytes(rest),
            headers,
        })
    }

    /// Takes what stands before a separator off the front. `None` if there is no separator and that is no error.
    fn take<'a>(
        &self,
        rest: &mut &'a [u8],
        separator: &str,
        what: &str,
        line: &[u8],
        number: u64,
    ) -> Result<Option<&'a [u8]>, String> {
        match find(rest, separator.as_bytes()) {
            Some(at) => {
                let part = &rest[..at];
                *rest = &rest[at + separator.len()..];
                Ok(Some(part))
            }
            None if self.ignore_error => Ok(None),
            None => Err(format!(
                "No {what} found on line number {number}: '{}'",
                String::from_utf8_lossy(line)
            )),
        }
    }

    fn headers(
        &self,
        text: &[u8],
        line: &[u8],
        number: u64,
    ) -> Result<Vec<(Bytes, Option<Bytes>)>, String> {
        let mut headers = Vec::new();
        let mut rest = Some(text);
        while let Some(text) = rest {
            let end = find(text, self.headers_separator.as_bytes());
            let (mut pair, next) = match end {
                Some(at) => (
                    &text[..at],
                    Some(&text[at + self.headers_separator.len()..]),
                ),
                None => (text, None),
            };
            rest = next;
            let separator = &self.headers_key_separator;
            match self.take(&mut pair, separator, "header key separator", line, number)? {
                Some(key) if self.is_null(key) => {
                    return Err(format!(
                        "Header keys should not be equal to the null marker on line number {number}"
                    ));
                }
                Some(key) => {
                    let value = (!self.is_null(pair)).then(|| Bytes::copy_from_slice(pair));
                    headers.push((Bytes::copy_from_slice(key), value));
                }
                None => headers.push((Bytes::copy_from_slice(pair), None)),
            }
        }
        Ok(headers)
    }

    fn is_null(&self, part: &[u8]) -> bool {
        self.null_marker
            .as_ref()
            .is_some_and(|marker| marker.as_bytes() == part)
    }
}

fn find(text: &[u8], separator: &[u8]) -> Option<usize> {
    if separator.is_empty() {
        return None;
    }
    text.windows(separator.len())
        .position(|window| window == separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_value_unless_more_is_asked_of_it() {
        check(&[], "a\tb", "- a\tb []");
        check(&[("parse.key", "true")], "k\tv\tw", "k v\tw []");
        check(
            &[("parse.key", "true"), ("key.separator", ":")],
            "k:",
            "k  []",
        );
        check(&[("parse.headers", "true")], "a:1,b:2\tv", "- v [a=1 b=2]");
        check(
            &[("parse.headers", "true"), ("parse.key", "true")],
            "a:1\tk\tv",
            "k v [a=1]",
        );
        check(
            &[("parse.key", "true"), ("null.marker", "NULL")],
            "k\tNULL",
            "k - []",
        );
        check(
            &[("parse.headers", "true"), ("null.marker", "N")],
            "a:N\tv",
            "- v [a=-]",
        );
        check(
            &[("parse.headers", "true"), ("null.marker", "N")],
            "N\tv",
            "- v []",
        );
    }

    #[test]
    fn a_missing_separator_is_an_error_unless_errors_are_ignored() {
        let key = ("parse.key", "true");
        check(&[key], "v", "No key separator found on line number 7: 'v'");
        check(&[key, ("ignore.error", "true")], "v", "- v []");
        check(
            &[("parse.headers", "true")],
            "a\tv",
            "No header key separator found on line number 7: 'a\tv'",
        );
        let mut format = Format::default();
        format.set("parse.headers", "true").expect("a flag");
        format.set("headers.separator", ":").expect("a separator");
        assert!(format.check().is_err());
        assert!(format.set("parse.key", "maybe").is_err());
    }

    #[track_caller]
    fn check(properties: &[(&str, &str)], line: &str, expected: &str) {
        let mut format = Format::default();
        for (key, value) in properties {
            format.set(key, value).expect("a property");
        }
        format.check().expect("separators that differ");
        let text = |part: &Option<Bytes>| match part {
            Some(part) => String::from_utf8_lossy(part).into_owned(),
            None => "-".to_owned(),
        };
        let got = match format.parse(line.as_bytes(), 7) {
            Err(wrong) => wrong,
            Ok(record) => {
                let header = |(key, value): &(Bytes, Option<Bytes>)| {
                    format!("{}={}", String::from_utf8_lossy(key), text(value))
                };
                let headers: Vec<String> = record.headers.iter().map(header).collect();
                format!(
                    "{} {} [{}]",
                    text(&record.key),
                    text(&record.value),
                    headers.join(" ")
                )
            }
        };
        assert_eq!(got, expected);
    }
}
