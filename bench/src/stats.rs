//! What several runs of the same thing amount to.

/// One figure per run, in the order they were taken. Never empty.
#[derive(Debug, Clone)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// `None` without a single run.
    pub(crate) fn new(values: impl IntoIterator<Item = f64>) -> Option<Samples> {
        let values: Vec<f64> = values.into_iter().collect();
        (!values.is_empty()).then_some(Samples(values))
    }

    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        }
    }

    pub(crate) fn min(&self) -> f64 {
        self.sorted()[0]
    }

    pub(crate) fn max(&self) -> f64 {
        self.sorted()[self.0.len() - 1]
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// The value that `quantile` of `values` do not exceed; 0 when there are none.
pub(crate) fn quantile(values: &mut [u64], quantile: f64) -> u64 {
    values.sort_unstable();
    // In range: the quantile is below one, and a count of samples is exact in an f64.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let at = (values.len() as f64 * quantile) as usize;
    values.get(at).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_runs_lies_between_the_middle_two() {
        let samples = Samples::new([4.0, 1.0, 3.0, 100.0]).expect("four runs");
        assert_eq!(
            (samples.min(), samples.median(), samples.max()),
            (1.0, 3.5, 100.0)
        );
    }

    #[test]
    fn one_slow_answer_in_a_hundred_is_the_99th_percentile() {
        let mut values: Vec<u64> = (0..100).map(|n| if n == 50 { 9000 } else { n }).collect();
        assert_eq!(quantile(&mut values, 0.99), 9000);
        assert_eq!(quantile(&mut [], 0.5), 0);
    }
}
