//! Which topics a pattern means: a regular expression that must match a topic's whole name, as in Java.
//!
//! Commas separate alternatives, as Kafka's tools take them.

use regex::Regex;

use super::Failure;

#[derive(Debug)]
pub(super) struct TopicFilter {
    regex: Regex,
    excludes_internal: bool,
}

impl TopicFilter {
    pub(super) fn new(pattern: &str, excludes_internal: bool) -> Result<TopicFilter, Failure> {
        let alternatives = pattern.trim().replace(',', "|");
        let alternatives = alternatives.trim_matches(['"', '\'']);
        let regex = Regex::new(&format!("\\A(?:{alternatives})\\z")).map_err(|err| {
            Failure::Refused(format!("{pattern} is an invalid regex: {}", cause(&err)))
        })?;
        Ok(TopicFilter {
            regex,
            excludes_internal,
        })
    }

    pub(super) fn matches(&self, topic: &str, is_internal: bool) -> bool {
        self.regex.is_match(topic) && !(is_internal && self.excludes_internal)
    }
}

/// The reason alone: the whole of it shows the pattern again, over several lines.
fn cause(err: &regex::Error) -> String {
    let text = err.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_name_must_match_and_commas_are_alternatives() {
        let filter = TopicFilter::new("b.*,alpha", false).expect("a pattern");
        for (topic, expected) in [
            ("beta", true),
            ("alpha", true),
            ("alphabet", false),
            ("gamma", false),
            ("ab", false),
        ] {
            assert_eq!(filter.matches(topic, false), expected, "{topic}");
        }
        assert!(TopicFilter::new("a(", false).is_err());
        let filter = TopicFilter::new(".*", true).expect("a pattern");
        assert!(!filter.matches("__consumer_offsets", true));
    }
}
