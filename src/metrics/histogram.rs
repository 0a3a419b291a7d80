//! A distribution of times or sizes in a fixed number of counters.
//!
//! Buckets grow with the value, four to each power of two, so a quantile is at most an eighth off whatever the
//! scale, and recording is two additions. A scrape wants the quantiles of the last minutes and not of all
//! time: the scraper keeps earlier counts and subtracts them ([`Window`]), and recording knows nothing of it.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Up to 2^40: twelve days in microseconds, a terabyte in bytes. What is larger counts as that.
const EXPONENT_MAX: u32 = 40;
const BUCKET_COUNT: usize = 8 + (EXPONENT_MAX as usize - 2) * 4;

#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKET_COUNT],
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub fn record(&self, value: u64) {
        self.counts[bucket(value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    pub(super) fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    fn counts(&self) -> Counts {
        array::from_fn(|bucket| self.counts[bucket].load(Relaxed))
    }
}

type Counts = [u64; BUCKET_COUNT];

/// What the scraper remembers of a histogram: its counts at the last two turns of the window.
pub(super) struct Window {
    older: Box<Counts>,
    newer: Box<Counts>,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            older: Box::new([0; BUCKET_COUNT]),
            newer: Box::new([0; BUCKET_COUNT]),
        }
    }
}

/// What a scrape shows of a histogram.
pub(super) struct Shown<const N: usize> {
    /// `None` when nothing was recorded lately.
    pub(super) quantiles: Option<[u64; N]>,
    pub(super) count: u64,
}

impl Window {
    /// The quantiles of what was recorded in this and the last turn. With `turn`, a new turn begins afterwards.
    pub(super) fn look<const N: usize>(
        &mut self,
        histogram: &Histogram,
        wanted: [f64; N],
        turn: bool,
    ) -> Shown<N> {
        let now = histogram.counts();
        let recent: Counts = array::from_fn(|bucket| now[bucket] - self.older[bucket]);
        if turn {
            std::mem::swap(&mut self.older, &mut self.newer);
            *self.newer = now;
        }
        let total: u64 = recent.iter().sum();
        Shown {
            quantiles: (total > 0).then(|| wanted.map(|quantile| at(&recent, total, quantile))),
            count: now.iter().sum(),
        }
    }
}

/// The middle of the bucket in which the quantile lies.
#[allow(clippy::cast_possible_truncation)] // A rank is at most the number of samples.
fn at(counts: &Counts, total: u64, quantile: f64) -> u64 {
    let rank = ((total as f64 * quantile).ceil() as u64).clamp(1, total);
    let mut seen = 0;
    for (bucket, count) in counts.iter().enumerate() {
        seen += count;
        if rank <= seen {
            return middle(bucket);
        }
    }
    middle(BUCKET_COUNT - 1)
}

fn bucket(value: u64) -> usize {
    match usize::try_from(value) {
        Ok(value) if value < 8 => value,
        _ => {
            let exponent = value.ilog2();
            if exponent > EXPONENT_MAX {
                return BUCKET_COUNT - 1;
            }
            // The two bits below the highest.
            let quarter = (value >> (exponent - 2)) & 3;
            8 + (exponent as usize - 3) * 4 + usize::try_from(quarter).unwrap_or(0)
        }
    }
}

fn middle(bucket: usize) -> u64 {
    let Some(above) = bucket.checked_sub(8) else {
        return bucket as u64;
    };
    let exponent = above / 4 + 3;
    let width = 1u64 << (exponent - 2);
    (4 + (above % 4) as u64) * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_an_eighth_of_the_middle_of_its_bucket() {
        for value in (0..100_000)
            .chain((17..=EXPONENT_MAX).flat_map(|e| [1 << e, (1 << e) + 1, (2u64 << e) - 1]))
        {
            let middle = middle(bucket(value));
            assert!(
                middle.abs_diff(value) <= value / 8,
                "{value} in a bucket around {middle}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKET_COUNT - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_last_two_turns() {
        let histogram = Histogram::default();
        let mut window = Window::default();
        assert_eq!(median(&mut window, &histogram, false), (None, 0));
        for value in [3, 4, 5] {
            histogram.record(value);
        }
        assert_eq!(median(&mut window, &histogram, true), (Some(4), 3));
        assert_eq!(median(&mut window, &histogram, true), (Some(4), 3));
        assert_eq!(median(&mut window, &histogram, true), (None, 3));
        histogram.record(7);
        assert_eq!(median(&mut window, &histogram, false), (Some(7), 4));
        assert_eq!(histogram.sum(), 19);
    }

    fn median(window: &mut Window, histogram: &Histogram, turn: bool) -> (Option<u64>, u64) {
        let shown = window.look(histogram, [0.5], turn);
        (shown.quantiles.map(|[median]| median), shown.count)
    }
}
