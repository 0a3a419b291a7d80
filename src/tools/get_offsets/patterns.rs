//! Which partitions are asked about: `topic:1`, `topic:0-3` (3 left out), `topic:5-`, `topic:-3`, `:2`.

use super::Options;
use crate::tools::{Failure, topic_filter::TopicFilter};

/// One of these must match.
#[derive(Debug)]
pub(super) struct Patterns(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    /// `None` is any topic.
    topic: Option<TopicFilter>,
    /// From the first, up to but without the second.
    ranges: Vec<(i32, i32)>,
}

const ALL: (i32, i32) = (0, i32::MAX);

impl Patterns {
    pub(super) fn new(options: &Options) -> Result<Patterns, Failure> {
        if let Some(patterns) = &options.topic_partitions {
            return Ok(Patterns(
                patterns.split(',').map(pattern).collect::<Result<_, _>>()?,
            ));
        }
        let topic = options
            .topic
            .as_deref()
            .map(|topic| TopicFilter::new(topic, false))
            .transpose()?;
        let ranges = match &options.partitions {
            None => vec![ALL],
            Some(list) => list
                .split(',')
                .map(str::trim)
                .filter(|index| !index.is_empty())
                .map(|index| {
                    let first = number(index, list)?;
                    Ok((first, first.saturating_add(1)))
                })
                .collect::<Result<_, Failure>>()?,
        };
        Ok(Patterns(vec![Pattern { topic, ranges }]))
    }

    pub(super) fn matches(&self, topic: &str, index: i32) -> bool {
        self.0.iter().any(|pattern| {
            let in_range = pattern
                .ranges
                .iter()
                .any(|(first, end)| (*first..*end).contains(&index));
            in_range
                && pattern
                    .topic
                    .as_ref()
                    .is_none_or(|filter| filter.matches(topic, false))
        })
    }
}

fn pattern(text: &str) -> Result<Pattern, Failure> {
    let text = text.trim();
    let (topic, indexes) = text.split_once(':').unwrap_or((text, ""));
    let range = match indexes.split_once('-') {
        _ if indexes.is_empty() => ALL,
        None => {
            let first = number(indexes, text)?;
            (first, first.saturating_add(1))
        }
        Some((first, end)) => (
            if first.is_empty() {
                0
            } else {
                number(first, text)?
            },
            if end.is_empty() {
                i32::MAX
            } else {
                number(end, text)?
            },
        ),
    };
    let topic = match topic.is_empty() {
        true => None,
        false => Some(TopicFilter::new(topic, false)?),
    };
    Ok(Pattern {
        topic,
        ranges: vec![range],
    })
}

fn number(text: &str, whole: &str) -> Result<i32, Failure> {
    text.parse().map_err(|_| {
        Failure::Refused(format!(
            "Invalid partition '{text}' in '{whole}': a number is expected"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_bounds_are_left_out_and_missing_parts_mean_all() {
        for (text, matching, other) in [
            ("a:1", vec![("a", 1)], vec![("a", 2), ("b", 1)]),
            ("a:1-3", vec![("a", 1), ("a", 2)], vec![("a", 0), ("a", 3)]),
            ("a:5-", vec![("a", 5), ("a", 500)], vec![("a", 4)]),
            ("a:-2", vec![("a", 0), ("a", 1)], vec![("a", 2)]),
            (":2", vec![("a", 2), ("b", 2)], vec![("a", 1)]),
            ("a.*", vec![("a", 7), ("abc", 0)], vec![("b", 0)]),
        ] {
            let patterns = Patterns(vec![pattern(text).expect("a pattern")]);
            assert!(
                matching
                    .iter()
                    .all(|(topic, index)| patterns.matches(topic, *index)),
                "{text}"
            );
            assert!(
                !other
                    .iter()
                    .any(|(topic, index)| patterns.matches(topic, *index)),
                "{text}"
            );
        }
        assert!(pattern("a:x").is_err());
    }
}
