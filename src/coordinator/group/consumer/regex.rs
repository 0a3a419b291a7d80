//! Subscriptions by regular expression, which the broker resolves.
//!
//! - The syntax is RE2's, and an expression has to match a topic's whole name. Matching takes time linear in the name,
//!   whatever the expression, and one that would take much memory or time to compile is refused.
//! - Every topic counts, internal ones too, as at a real broker: clients are the ones who leave those out.
//! - What an expression matches is resolved ([`super::resolution`]) when a member brings one that the group has not, when there are other
//!   topics, and every ten minutes. What has come of it is a record, and the group's epoch goes on if it is something
//!   else than before.

use std::{collections::BTreeSet, sync::Arc};

use protocol::records::group::{
    ConsumerGroupRegularExpressionValue, GroupRecord, RegularExpressionKey,
};
use regex::{Regex, RegexBuilder};
use replication::cluster::ClusterImage;

/// What a compiled expression may take, and what its cache may.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// How deep brackets may be nested.
const NESTING_MAX: u32 = 100;

/// How many classes of characters, and characters that no topic's name has, an expression may be made of: with `(?i)`
/// each may stand for a hundred thousand characters, which are looked up one by one and are not part of what counts as
/// compiled. Ten thousand of them took seconds.
const CLASSES_MAX: usize = 500;

/// Longer expressions are refused unread.
const LENGTH_MAX: usize = i16::MAX as usize;

/// The topics that an expression matched when it was resolved.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Resolved {
    /// In their order, each once.
    pub(super) topics: Arc<[Arc<str>]>,
    /// Offset of the newest metadata record that was known then.
    pub(super) version: i64,
    /// When that was (ms).
    pub(super) timestamp: i64,
}

/// Checks an expression, and says what is wrong with it.
pub(in super::super) fn check(pattern: &str) -> Result<(), String> {
    if LENGTH_MAX < pattern.len() {
        return Err("expression too long".to_owned());
    }
    // The pattern as it stands has to be one: what closes more brackets than it opens must not profit from ours.
    build(&unquoted(pattern))?;
    whole(pattern).map(|_| ())
}

/// An expression that has been checked, as it is held against names.
fn whole(pattern: &str) -> Result<Regex, String> {
    let pattern = unquoted(pattern);
    build(&format!("\\A(?:{pattern})\\z"))
}

/// `\w`, `\pL`, `\x{e4}` and the like, and what is no ASCII as it stands.
fn class_count(pattern: &str) -> usize {
    let mut count = 0;
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let c = if c == '\\' { chars.next() } else { None }.map_or(c, |escaped| match escaped {
            'p' | 'P' | 'w' | 'W' | 'd' | 'D' | 's' | 'S' | 'x' | 'u' | 'U' => char::MAX,
            literal => literal,
        });
        count += usize::from(!c.is_ascii());
    }
    count
}

/// What stands between `\Q` and `\E` means itself, in RE2 as in Java, whose clients quote names of topics like this.
fn unquoted(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        if let Some(quoted) = after.strip_prefix("\\Q") {
            let (quoted, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(quoted));
            rest = after;
        } else {
            // The next character belongs to the backslash, also if it is one.
            let next = after.chars().nth(1).map_or(0, char::len_utf8);
            let (escape, after) = after.split_at(1 + next);
            out.push_str(escape);
            rest = after;
        }
    }
    out + rest
}

fn build(pattern: &str) -> Result<Regex, String> {
    let too_large = || "expression too large".to_owned();
    if CLASSES_MAX < class_count(pattern) {
        return Err(too_large());
    }
    let regex = RegexBuilder::new(pattern)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .nest_limit(NESTING_MAX)
        .build();
    regex.map_err(|err| match err {
        regex::Error::CompiledTooBig(_) => too_large(),
        err => {
            // The reason stands last, below a picture of where.
            let text = err.to_string();
            let reason = text.lines().last().unwrap_or_default();
            reason.trim_start_matches("error: ").to_owned()
        }
    })
}

impl Resolved {
    pub(super) fn new(pattern: &str, image: &ClusterImage, now: i64) -> Self {
        // It was checked when it came. A later version of this broker may be stricter: then it matches nothing.
        let regex = whole(pattern).ok();
        let is_match = |name: &str| regex.as_ref().is_some_and(|regex| regex.is_match(name));
        let topics: BTreeSet<Arc<str>> = image
            .topics()
            .filter(|topic| is_match(&topic.name))
            .map(|topic| Arc::clone(&topic.name))
            .collect();
        Self {
            topics: topics.into_iter().collect(),
            version: image.offset,
            timestamp: now,
        }
    }

    pub(super) fn has(&self, topic: &str) -> bool {
        let place = self.topics.binary_search_by(|name| (**name).cmp(topic));
        place.is_ok()
    }

    pub(super) fn record(&self, group_id: &str, pattern: &str) -> GroupRecord {
        GroupRecord::ConsumerGroupRegularExpression {
            key: key(group_id, pattern),
            value: Some(ConsumerGroupRegularExpressionValue {
                topics: self.topics.iter().map(|name| (**name).to_owned()).collect(),
                version: self.version,
                timestamp: self.timestamp,
            }),
        }
    }

    pub(super) fn of_record(value: ConsumerGroupRegularExpressionValue) -> Self {
        // Other brokers write them in any order.
        let topics: BTreeSet<Arc<str>> = value.topics.into_iter().map(Arc::from).collect();
        Self {
            topics: topics.into_iter().collect(),
            version: value.version,
            timestamp: value.timestamp,
        }
    }
}

pub(super) fn tombstone(group_id: &str, pattern: &str) -> GroupRecord {
    GroupRecord::ConsumerGroupRegularExpression {
        key: key(group_id, pattern),
        value: None,
    }
}

fn key(group_id: &str, pattern: &str) -> RegularExpressionKey {
    RegularExpressionKey {
        group_id: group_id.to_owned(),
        regular_expression: pattern.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_name_has_to_match() {
        for (pattern, name, want) in [
            ("orders", "orders", true),
            ("orders", "my-orders", false),
            ("orders", "orders-2", false),
            ("a|b", "b", true),
            ("a|b", "ab", false),
            ("^orders.*$", "orders-2", true),
            ("(?i)ORDERS", "orders", true),
            ("[[:alpha:]]+\\d", "x9", true),
            ("\\Qa.b\\E.*", "a.b-1", true),
            ("\\Qa.b\\E.*", "axb-1", false),
            ("\\Qa.b", "a.b", true),
            ("a\\.\\Q.\\E", "a..", true),
        ] {
            assert_eq!(
                whole(pattern).unwrap().is_match(name),
                want,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn what_is_no_expression_of_re2_is_refused() {
        for (pattern, want) in [
            ("(", "unclosed group"),
            (")", "unopened group"),
            ("a)(b", "unopened group"),
            ("[", "unclosed character class"),
            ("*", "repetition operator missing expression"),
            (
                "\\",
                "incomplete escape sequence, reached end of pattern prematurely",
            ),
            (
                "[b-a]",
                "invalid character class range, the start must be <= the end",
            ),
            (
                "(?=a)b",
                "look-around, including look-ahead and look-behind, is not supported",
            ),
            ("(a)\\1", "backreferences are not supported"),
            ("((a{99}){99}){99}", "expression too large"),
        ] {
            assert_eq!(check(pattern).unwrap_err(), want, "{pattern}");
        }
        for many in ["\\pL", "[\\w]", "[\\x{0}-\\x{10ffff}]", "[!-\u{10ffff}]"] {
            let pattern = format!("(?i){}", many.repeat(LENGTH_MAX / many.len() - 1));
            assert_eq!(check(&pattern).unwrap_err(), "expression too large");
        }
        assert_eq!(check(&"orders-\\d+|".repeat(100)), Ok(()));
        assert!(check(&"(".repeat(30_000)).is_err());
        assert!(check(&"a".repeat(LENGTH_MAX + 1)).is_err());
    }
}
