//! What of a log is to be compacted, and in which portions. Pure.

/// What the plan looks at, of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) base_offset: i64,
    pub(crate) size: u64,
    /// Of its newest record; asked for where `min.compaction.lag.ms` matters.
    pub(crate) largest_timestamp: i64,
    /// Of its first batch; asked for where `max.compaction.lag.ms` matters.
    pub(crate) first_timestamp: Option<i64>,
}

/// Where the next compaction of a log begins and ends.
///
/// ```text
/// start         first_dirty                       end                     log end
///   |  cleaned before  |  cleaned now: the newest  |  too new, or active     |
///   |                  |  record of each key wins  |                         |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirty {
    pub first_dirty: i64,
    /// A segment's base offset: nothing from here on is touched.
    pub end: i64,
    pub clean_bytes: u64,
    pub dirty_bytes: u64,
    /// By how much the oldest record has passed `max.compaction.lag.ms`.
    pub overdue_ms: i64,
}

impl Dirty {
    /// The share of what can be compacted that has not been.
    pub fn ratio(&self) -> f64 {
        let total = self.clean_bytes + self.dirty_bytes;
        if total == 0 {
            return 0.0;
        }
        self.dirty_bytes as f64 / total as f64
    }

    /// Whether it is worth it, or must be: `min.cleanable.dirty.ratio` or `max.compaction.lag.ms`.
    pub fn is_due(&self, min_ratio: f64) -> bool {
        self.dirty_bytes > 0 && (self.overdue_ms > 0 || self.ratio() > min_ratio)
    }
}

/// Times and limits of [`dirty`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) start_offset: i64,
    pub(crate) end_offset: i64,
    /// The last stable offset: what is below is decided for good.
    pub(crate) stable_offset: i64,
    pub(crate) min_lag_ms: i64,
    pub(crate) max_lag_ms: i64,
    pub(crate) now: i64,
}

/// `cleaned` is how far the last compaction came, if there was one. `segments` are all of the log's,
/// the active one last.
pub(crate) fn dirty(cleaned: Option<i64>, segments: &[Facts], bounds: Bounds) -> Dirty {
    // Outside of the log after records were deleted or truncated: all may be dirty.
    let first_dirty = cleaned
        .filter(|cleaned| (bounds.start_offset..=bounds.end_offset).contains(cleaned))
        .unwrap_or(bounds.start_offset);
    let sealed = segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
    let ends_after_dirty = |at: usize| {
        let next = segments.get(at + 1);
        next.is_some_and(|next| next.base_offset > first_dirty)
    };
    let dirty_segments = || {
        let sealed = sealed.iter().enumerate();
        sealed
            .filter(|(at, _)| ends_after_dirty(*at))
            .map(|(_, segment)| segment)
    };
    let too_new = dirty_segments().find(|segment| {
        bounds.min_lag_ms > 0
            && segment.largest_timestamp > bounds.now.saturating_sub(bounds.min_lag_ms)
    });
    let active = segments.last().map_or(0, |active| active.base_offset);
    let limit = too_new.map_or(active, |segment| segment.base_offset);
    let limit = limit.min(bounds.stable_offset);
    // Whole segments only: up to the last that ends at or below the limit.
    let end = segments
        .iter()
        .rev()
        .map(|segment| segment.base_offset)
        .find(|base_offset| *base_offset <= limit)
        .unwrap_or(0)
        .max(segments.first().map_or(0, |first| first.base_offset));

    let mut dirty = Dirty {
        first_dirty,
        end,
        clean_bytes: 0,
        dirty_bytes: 0,
        overdue_ms: 0,
    };
    for (at, segment) in sealed.iter().enumerate() {
        if segment.base_offset >= end {
            break;
        }
        if ends_after_dirty(at) {
            dirty.dirty_bytes += segment.size;
        } else {
            dirty.clean_bytes += segment.size;
        }
    }
    let oldest = dirty_segments().filter_map(|segment| segment.first_timestamp);
    if let Some(oldest) = oldest.filter(|first| *first > 0).min() {
        let waited = bounds.now.saturating_sub(oldest);
        dirty.overdue_ms = waited.saturating_sub(bounds.max_lag_ms).max(0);
    }
    dirty
}

/// What decides which segments become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Portion {
    pub(crate) base_offset: i64,
    pub(crate) size: u64,
    pub(crate) index_bytes: u64,
    pub(crate) time_index_bytes: u64,
}

/// How large a segment may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) size: u64,
    pub(crate) index_bytes: u64,
}

/// How many segments go into each of the new ones: as many as have room by what they are now, which
/// compaction only makes smaller. `end` is where the last segment ends.
pub(crate) fn groups(segments: &[Portion], room: Room, end: i64) -> Vec<usize> {
    let mut groups = Vec::new();
    let mut rest = segments;
    while let Some((first, more)) = rest.split_first() {
        let mut sum = *first;
        let fits = more.iter().enumerate().take_while(|(at, next)| {
            sum.size += next.size;
            sum.index_bytes += next.index_bytes;
            sum.time_index_bytes += next.time_index_bytes;
            // Offsets in indexes are relative to the segment's.
            let last = more.get(at + 1).map_or(end, |after| after.base_offset) - 1;
            sum.size <= room.size
                && sum.index_bytes <= room.index_bytes
                && sum.time_index_bytes <= room.index_bytes
                && i32::try_from(last - first.base_offset).is_ok()
        });
        let count = 1 + fits.count();
        groups.push(count);
        rest = &rest[count..];
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    /// Segments of ten records and 100 bytes, a second apart, the newest record of the last at `NOW`.
    fn segments(count: i64) -> Vec<Facts> {
        (0..count)
            .map(|at| Facts {
                base_offset: at * 10,
                size: 100,
                largest_timestamp: NOW - (count - 1 - at) * 1000,
                first_timestamp: Some(NOW - (count - at) * 1000 + 1),
            })
            .collect()
    }

    fn bounds() -> Bounds {
        Bounds {
            start_offset: 0,
            end_offset: 45,
            stable_offset: 45,
            min_lag_ms: 0,
            max_lag_ms: i64::MAX,
            now: NOW,
        }
    }

    /// First dirty offset, end, bytes clean and dirty.
    fn check(cleaned: Option<i64>, bounds: Bounds) -> (i64, i64, u64, u64) {
        let dirty = dirty(cleaned, &segments(5), bounds);
        let Dirty {
            first_dirty, end, ..
        } = dirty;
        (first_dirty, end, dirty.clean_bytes, dirty.dirty_bytes)
    }

    #[test]
    fn all_but_the_active_segment_is_dirty_at_first_and_what_came_since_later() {
        assert_eq!(check(None, bounds()), (0, 40, 0, 400));
        assert_eq!(check(Some(20), bounds()), (20, 40, 200, 200));
        assert_eq!(
            check(Some(25), bounds()),
            (25, 40, 200, 200),
            "begins inside"
        );
        assert_eq!(check(Some(40), bounds()), (40, 40, 400, 0));
    }

    #[test]
    fn a_position_outside_of_the_log_begins_anew() {
        let bounds = Bounds {
            start_offset: 10,
            ..bounds()
        };
        assert_eq!(check(Some(5), bounds).0, 10);
        assert_eq!(check(Some(46), bounds).0, 10);
    }

    #[test]
    fn nothing_undecided_or_too_new_is_touched() {
        let at = |stable_offset| {
            let bounds = Bounds {
                stable_offset,
                ..bounds()
            };
            check(None, bounds).1
        };
        assert_eq!(at(45), 40);
        assert_eq!(at(30), 30);
        assert_eq!(at(29), 20, "its segment is not decided as a whole");
        assert_eq!(at(0), 0);
        let lag = |min_lag_ms| {
            let bounds = Bounds {
                min_lag_ms,
                ..bounds()
            };
            check(None, bounds).1
        };
        assert_eq!(lag(1000), 40);
        assert_eq!(lag(1001), 30);
        assert_eq!(lag(1_000_000), 0);
    }

    #[test]
    fn it_is_due_by_ratio_or_by_age() {
        let of = |cleaned, max_lag_ms| {
            let bounds = Bounds {
                max_lag_ms,
                ..bounds()
            };
            dirty(Some(cleaned), &segments(5), bounds)
        };
        assert!(of(0, i64::MAX).is_due(0.5));
        assert!(!of(20, i64::MAX).is_due(0.5), "must be more");
        assert!(of(20, i64::MAX).is_due(0.49));
        assert_eq!(of(20, 1000).overdue_ms, 1999);
        assert!(of(20, 1000).is_due(0.9));
        assert!(!of(20, 3000).is_due(0.9));
        assert!(!of(40, 0).is_due(0.0), "nothing to do");
    }

    fn check_groups(sizes: &[u64], bases: &[i64], end: i64) -> Vec<usize> {
        let segments: Vec<_> = sizes
            .iter()
            .zip(bases)
            .map(|(size, base_offset)| Portion {
                base_offset: *base_offset,
                size: *size,
                index_bytes: size / 10,
                time_index_bytes: size / 20,
            })
            .collect();
        let room = Room {
            size: 100,
            index_bytes: 9,
        };
        groups(&segments, room, end)
    }

    #[test]
    fn small_segments_become_one_as_long_as_there_is_room() {
        assert_eq!(check_groups(&[30, 30, 30, 30], &[0, 1, 2, 3], 4), [3, 1]);
        assert_eq!(check_groups(&[200, 1, 1], &[0, 1, 2], 3), [1, 2]);
        assert_eq!(check_groups(&[50, 50], &[0, 1], 2), [1, 1], "by the index");
        assert_eq!(check_groups(&[0, 0, 0], &[0, 1, 2], 3), [3]);
        assert_eq!(check_groups(&[], &[], 0), [0; 0]);
        let far = i64::from(i32::MAX);
        assert_eq!(check_groups(&[1, 1], &[0, 5], far + 1), [2]);
        assert_eq!(check_groups(&[1, 1], &[0, 5], far + 2), [1, 1]);
        assert_eq!(check_groups(&[1, 1, 1], &[0, 5, far + 2], far + 5), [1, 2]);
    }
}
