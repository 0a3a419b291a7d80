//! `--add-config`: `key=value` pairs between commas, where a value with commas of its own stands in brackets (pure).

const WRONG: &str = "requirement failed: Invalid entity config: all configs to be added must be in the format \"key=val\" or  \
                     \"key=[val1,val2]\" to group values which contain commas.";

/// The pairs in their order; `Err` is what to tell the person.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for part in parts(text) {
        let (key, value) = part.split_once('=').ok_or(WRONG)?;
        if key.trim().is_empty() {
            return Err(WRONG.to_owned());
        }
        let value: String = value.chars().filter(|c| !matches!(c, '[' | ']')).collect();
        pairs.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    if pairs.is_empty() {
        return Err(WRONG.to_owned());
    }
    Ok(pairs)
}

/// Splits at the commas that are not between brackets.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth <= 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => (),
        }
    }
    parts.push(&text[start..]);
    parts
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_between_brackets_belong_to_the_value() {
        check("a=1", "a=1");
        check("a=1,b=[x,y],c=3", "a=1|b=x,y|c=3");
        check(" a = 1 , b = 2 ", "a=1|b=2");
        check("a=", "a=");
        check("a=b=c", "a=b=c");
        for wrong in ["a", "", ",", "=1", "a=1,b"] {
            assert_eq!(parse(wrong), Err(WRONG.to_owned()), "{wrong}");
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let pairs = parse(text).expect(text);
        let shown: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(shown.join("|"), expected);
    }
}
