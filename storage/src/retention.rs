//! Which segments go, and why: by age, by size, by start offset. Pure.

use std::fmt;

use crate::config::Config;

/// What retention looks at, of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub size: u64,
    /// Of its newest record; the file's age where records have no timestamps.
    pub largest_timestamp: i64,
    /// The offset after its last: the next segment's base, or the log end.
    pub end_offset: i64,
}

/// Why a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// All of it is below the start offset.
    StartOffset { start_offset: i64 },
    /// Without it the log still has `retention.bytes`.
    Size { retention_bytes: i64, left: u64 },
    /// Its newest record is older than `retention.ms`, or it has no record.
    Age { retention_ms: i64 },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::StartOffset { start_offset } => {
                write!(f, "it lies below the start offset {start_offset}")
            }
            Reason::Size {
                retention_bytes,
                left,
            } => write!(
                f,
                "the log is larger than retention.bytes={retention_bytes}, {left} bytes are left"
            ),
            Reason::Age { retention_ms } => {
                write!(
                    f,
                    "its newest record is older than retention.ms={retention_ms}"
                )
            }
        }
    }
}

/// Which segments, from the oldest, are to be deleted: as many as there are reasons.
///
/// `segments` are all of the log's, oldest first. The last is the one being written: it may go too
/// (the caller rolls a new one first) unless it is empty. Nothing at or above the high watermark
/// goes, so that the start offset never passes it.
pub fn deletable(
    segments: &[Candidate],
    start_offset: i64,
    high_watermark: i64,
    config: &Config,
    now: i64,
) -> Vec<Reason> {
    let total: u64 = segments.iter().map(|segment| segment.size).sum();
    let mut surplus = match u64::try_from(config.retention_bytes) {
        Ok(keep) if config.delete => total.checked_sub(keep),
        _ => None,
    };
    let expires = config.delete && config.retention_ms >= 0;
    let mut left = total;
    let mut reason = |at: usize, segment: &Candidate| {
        let active = at + 1 == segments.len();
        if segment.end_offset > high_watermark || (active && segment.size == 0) {
            return None;
        }
        let passed = !active && segment.end_offset <= start_offset;
        let oversized = match surplus {
            Some(too_much) if too_much >= segment.size => {
                surplus = Some(too_much - segment.size);
                true
            }
            _ => false,
        };
        let age = now.saturating_sub(segment.largest_timestamp);
        // Compaction may have left nothing of a segment, not even a time.
        let empty = !active && segment.size == 0;
        left -= segment.size;
        if passed {
            Some(Reason::StartOffset { start_offset })
        } else if expires && (empty || age > config.retention_ms) {
            Some(Reason::Age {
                retention_ms: config.retention_ms,
            })
        } else {
            oversized.then_some(Reason::Size {
                retention_bytes: config.retention_bytes,
                left,
            })
        }
    };
    segments
        .iter()
        .enumerate()
        .map_while(|(at, segment)| reason(at, segment))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten records and 100 bytes a segment, one hour apart, the last an hour before `NOW`.
    fn hourly(count: i64) -> Vec<Candidate> {
        (0..count)
            .map(|at| Candidate {
                size: 100,
                largest_timestamp: NOW - (count - at) * HOUR,
                end_offset: (at + 1) * 10,
            })
            .collect()
    }

    fn count(
        segments: &[Candidate],
        start_offset: i64,
        high_watermark: i64,
        config: &Config,
        now: i64,
    ) -> usize {
        deletable(segments, start_offset, high_watermark, config, now).len()
    }

    const HOUR: i64 = 3_600_000;
    const NOW: i64 = 1_000 * HOUR;

    fn config(retention_ms: i64, retention_bytes: i64) -> Config {
        Config {
            retention_ms,
            retention_bytes,
            ..Config::default()
        }
    }

    #[test]
    fn segments_go_by_the_age_of_their_newest_record() {
        let segments = hourly(5);
        let by_age = |ms| count(&segments, 0, 50, &config(ms, -1), NOW);
        assert_eq!(by_age(3 * HOUR), 2);
        assert_eq!(by_age(3 * HOUR - 1), 3);
        assert_eq!(by_age(-1), 0);
        assert_eq!(by_age(0), 5, "even the active one");
    }

    #[test]
    fn whole_segments_go_while_the_rest_is_still_enough() {
        let segments = hourly(5);
        let by_size = |bytes| count(&segments, 0, 50, &config(-1, bytes), NOW);
        assert_eq!(by_size(500), 0);
        assert_eq!(by_size(401), 0, "one less would be below");
        assert_eq!(by_size(400), 1);
        assert_eq!(by_size(150), 3);
        assert_eq!(by_size(-1), 0);
        assert_eq!(by_size(0), 5);
    }

    #[test]
    fn records_deleted_by_request_take_their_segments_along_even_when_compacted() {
        let compacted = Config {
            delete: false,
            ..config(0, 0)
        };
        assert_eq!(count(&hourly(3), 20, 30, &compacted, NOW), 2);
        assert_eq!(count(&hourly(3), 19, 30, &compacted, NOW), 1);
        assert_eq!(
            count(&hourly(3), 30, 30, &compacted, NOW),
            2,
            "not the active one"
        );
    }

    #[test]
    fn a_segment_of_which_compaction_left_nothing_keeps_nobody_back() {
        let mut segments = hourly(3);
        segments[0].size = 0;
        segments[0].largest_timestamp = NOW;
        let by_age = |ms| count(&segments, 0, 30, &config(ms, -1), NOW);
        assert_eq!(by_age(90 * 60_000), 2);
        assert_eq!(by_age(-1), 0);
    }

    #[test]
    fn each_goes_for_a_reason() {
        let both = config(HOUR + HOUR / 2, 150);
        let reasons = deletable(&hourly(5), 10, 50, &both, NOW);
        let said: Vec<String> = reasons.iter().map(Reason::to_string).collect();
        assert_eq!(
            said,
            [
                "it lies below the start offset 10",
                "its newest record is older than retention.ms=5400000",
                "its newest record is older than retention.ms=5400000",
                "its newest record is older than retention.ms=5400000",
            ]
        );
        let by_size = deletable(&hourly(5), 0, 50, &config(-1, 400), NOW);
        let left = Reason::Size {
            retention_bytes: 400,
            left: 400,
        };
        assert_eq!(by_size, [left]);
    }

    #[test]
    fn nothing_above_the_high_watermark_goes() {
        assert_eq!(count(&hourly(5), 0, 29, &config(0, 0), NOW), 2);
    }

    #[test]
    fn an_empty_active_segment_stays() {
        let mut segments = hourly(2);
        segments.push(Candidate {
            size: 0,
            largest_timestamp: 0,
            end_offset: 20,
        });
        assert_eq!(count(&segments, 0, 20, &config(0, 0), NOW), 2);
    }
}
