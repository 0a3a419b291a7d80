//! What the log is told of refusals that nobody else hears of (pure): each once in a while, and never many, since who is
//! refused asks ten times a second, and may ask for anything.

use std::collections::BTreeSet;

/// When a complaint may be repeated: whoever has set it right does not want to read it again, whoever has not, does.
const AGAIN_MS: i64 = 600_000;

/// How many different ones there are in that time. A client that makes up names is told of like one that has a hundred.
const COUNT_MAX: usize = 100;

#[derive(Debug, Default)]
pub(crate) struct Complaints {
    since_ms: i64,
    made: BTreeSet<String>,
}

impl Complaints {
    /// Whether this one should be made. `now_ms` is from a clock that nobody sets.
    pub(crate) fn is_news(&mut self, complaint: &str, now_ms: i64) -> bool {
        if AGAIN_MS <= now_ms - self.since_ms {
            self.since_ms = now_ms;
            self.made.clear();
        }
        self.made.len() < COUNT_MAX && self.made.insert(complaint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two topics that were asked for in turn were complained of each time.
    #[test]
    fn each_complaint_is_made_once_in_ten_minutes() {
        let mut complaints = Complaints::default();
        for (complaint, now_ms, is_news) in [
            ("a", 0, true),
            ("b", 100, true),
            ("a", 200, false),
            ("b", 599_999, false),
            ("a", 600_000, true),
        ] {
            assert_eq!(complaints.is_news(complaint, now_ms), is_news, "{now_ms}");
        }
    }

    #[test]
    fn a_client_that_makes_up_names_does_not_fill_the_log() {
        let mut complaints = Complaints::default();
        let made = (0..10_000).filter(|name| complaints.is_news(&name.to_string(), 0));
        assert_eq!(made.count(), COUNT_MAX);
    }
}
