//! Who goes when: the two brokers take turns, and change places every round.

use crate::{Result, broker::Side, stats::Samples};

/// One thing for each side that takes part.
#[derive(Debug)]
pub(crate) struct BySide<T>(Vec<(Side, T)>);

impl<T> BySide<T> {
    pub(crate) fn try_new(
        sides: &[Side],
        mut make: impl FnMut(Side) -> Result<T>,
    ) -> Result<BySide<T>> {
        let each = sides.iter().map(|&side| Ok((side, make(side)?)));
        Ok(BySide(each.collect::<Result<_>>()?))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Nothing when the side does not take part.
    pub(crate) fn get(&self, side: Side) -> Option<&T> {
        self.0
            .iter()
            .find(|(one, _)| *one == side)
            .map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, side: Side) -> Option<&mut T> {
        self.0
            .iter_mut()
            .find(|(one, _)| *one == side)
            .map(|(_, value)| value)
    }
}

impl<A, B> BySide<(A, B)> {
    pub(crate) fn unzip(self) -> (BySide<A>, BySide<B>) {
        let pairs = self
            .0
            .into_iter()
            .map(|(side, (a, b))| ((side, a), (side, b)));
        let (first, second) = pairs.unzip();
        (BySide(first), BySide(second))
    }
}

impl<T> BySide<Vec<T>> {
    /// One figure out of every run of a side.
    pub(crate) fn samples(&self, side: Side, figure: impl Fn(&T) -> f64) -> Option<Samples> {
        Samples::new(self.get(side)?.iter().map(figure))
    }
}

/// Runs `work` against each subject `runs` times: A B, B A, A B, so that a drift of the machine
/// favours neither.
pub(crate) fn in_turns<S, T>(
    subjects: &mut BySide<S>,
    runs: u32,
    work: impl FnMut(Side, &mut S) -> Result<T>,
) -> Result<BySide<Vec<T>>> {
    turns(subjects, |_| runs, work)
}

/// Where the bar is for our own figure: Kafka, which takes far longer, has one turn for comparison.
pub(crate) fn kafka_once<T>(
    sides: &[Side],
    runs: u32,
    mut work: impl FnMut(Side) -> Result<T>,
) -> Result<BySide<Vec<T>>> {
    let mut subjects = BySide::try_new(sides, Ok)?;
    let runs_of = |side| if side == Side::Kafka { 1 } else { runs };
    turns(&mut subjects, runs_of, |side, _| work(side))
}

fn turns<S, T>(
    subjects: &mut BySide<S>,
    runs_of: impl Fn(Side) -> u32,
    mut work: impl FnMut(Side, &mut S) -> Result<T>,
) -> Result<BySide<Vec<T>>> {
    let mut order: Vec<Side> = subjects.0.iter().map(|(side, _)| *side).collect();
    let mut measured = BySide(order.iter().map(|&side| (side, Vec::new())).collect());
    let rounds = order.iter().map(|&side| runs_of(side)).max().unwrap_or(0);
    for round in 0..rounds {
        for &side in order.iter().filter(|&&side| round < runs_of(side)) {
            let (Some(subject), Some(runs)) = (subjects.get_mut(side), measured.get_mut(side))
            else {
                continue;
            };
            runs.push(work(side, subject)?);
        }
        order.reverse();
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sides_change_places_every_round() {
        let mut subjects =
            BySide::try_new(&[Side::Sordini, Side::Kafka], |_| Ok(())).expect("nothing fails");
        let mut order = Vec::new();
        in_turns(&mut subjects, 3, |side, ()| {
            order.push(side);
            Ok(())
        })
        .expect("nothing fails");
        use Side::{Kafka as K, Sordini as S};
        assert_eq!(order, [S, K, K, S, S, K]);

        order.clear();
        kafka_once(&[S, K], 3, |side| {
            order.push(side);
            Ok(())
        })
        .expect("nothing fails");
        assert_eq!(order, [S, K, S, S]);
    }
}
