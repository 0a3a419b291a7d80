//! Java's `.properties` files: `key=value` lines as `java.util.Properties` reads them.
//!
//! What would surprise: `:` and plain blanks separate a key from its value as `=` does, a backslash at the
//! end of a line joins it with the next, a value keeps its trailing blanks, and of a key written twice the last
//! line wins.

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Property {
    pub(crate) key: String,
    pub(crate) value: String,
    /// The line the key starts on, counted from 1.
    pub(crate) line: usize,
}

/// The properties in the order they are written, or the line that cannot be read and why.
pub(crate) fn parse(text: &str) -> Result<Vec<Property>, (usize, &'static str)> {
    let mut properties = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let first = first.trim_start_matches(BLANKS);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while ends_with_open_backslash(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(BLANKS));
        }
        let line = index + 1;
        let (key, value) = separate(&logical);
        properties.push(Property {
            key: unescape(key).map_err(|why| (line, why))?,
            value: unescape(value).map_err(|why| (line, why))?,
            line,
        });
    }
    Ok(properties)
}

const BLANKS: [char; 3] = [' ', '\t', '\x0c'];

fn ends_with_open_backslash(line: &str) -> bool {
    line.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1
}

fn separate(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line
        .find(|c| {
            let ends = !escaped && (c == '=' || c == ':' || BLANKS.contains(&c));
            escaped = c == '\\' && !escaped;
            ends
        })
        .unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start_matches(BLANKS);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, value.trim_start_matches(BLANKS))
}

fn unescape(text: &str) -> Result<String, &'static str> {
    const MALFORMED: &str = "\\u is not followed by four hexadecimal digits";
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                None => break,
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\x0c',
                Some('u') => {
                    let digits = chars.as_str().get(..4).ok_or(MALFORMED)?;
                    let digits_only = digits.bytes().all(|b| b.is_ascii_hexdigit());
                    let unit = u16::from_str_radix(digits, 16).ok().filter(|_| digits_only);
                    units.push(unit.ok_or(MALFORMED)?);
                    chars = chars.as_str()[4..].chars();
                    continue;
                }
                Some(other) => other,
            },
            c => c,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    // Escapes are UTF-16, so a character outside the basic plane is written as two of them.
    Ok(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_separator_and_values_keep_what_follows() {
        check("a=1", &[("a", "1", 1)]);
        check("a = 1", &[("a", "1", 1)]);
        check("a:1", &[("a", "1", 1)]);
        check("a 1 2", &[("a", "1 2", 1)]);
        check("a==1", &[("a", "=1", 1)]);
        check("a\\=b=1 ", &[("a=b", "1 ", 1)]);
        check(
            "listeners=PLAINTEXT://:9092",
            &[("listeners", "PLAINTEXT://:9092", 1)],
        );
        check("alone", &[("alone", "", 1)]);
    }

    #[test]
    fn comments_and_empty_lines_are_skipped_and_lines_still_counted() {
        check("# c\n\n  ! c\n a=1\r\nb=2", &[("a", "1", 4), ("b", "2", 5)]);
    }

    #[test]
    fn a_backslash_joins_lines_unless_it_is_escaped() {
        check(
            "a=1,\\\n   2,\\\n   3\nb=4",
            &[("a", "1,2,3", 1), ("b", "4", 4)],
        );
        check("a=c:\\\\\nb=4", &[("a", "c:\\", 1), ("b", "4", 2)]);
        check("a=1\\", &[("a", "1", 1)]);
    }

    #[test]
    fn escapes_are_read_as_java_reads_them() {
        check("a=\\u00e9\\t\\q", &[("a", "é\tq", 1)]);
        check("a=\\ud83d\\ude00", &[("a", "😀", 1)]);
        assert_eq!(
            parse("b=1\na=\\u12"),
            Err((2, "\\u is not followed by four hexadecimal digits"))
        );
        assert_eq!(
            parse("a=\\u+123"),
            Err((1, "\\u is not followed by four hexadecimal digits"))
        );
    }

    #[track_caller]
    fn check(text: &str, want: &[(&str, &str, usize)]) {
        let got = parse(text).expect("a readable file");
        let got: Vec<_> = got
            .iter()
            .map(|p| (p.key.as_str(), p.value.as_str(), p.line))
            .collect();
        assert_eq!(got, want, "in {text:?}");
    }
}
