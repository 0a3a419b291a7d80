//! Chance for pure decisions: seeded once by the controller, and by a test with what it likes.

use uuid::Uuid;

/// SplitMix64: two lines, and good enough to spread replicas and tell topics apart.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..end`; 0 for an empty range.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// A topic id as Kafka makes them: random, and none that its text form would start with a dash,
    /// which command line tools take for an option.
    pub fn topic_id(&mut self) -> Uuid {
        const DASH: u8 = 62;
        loop {
            let random = u128::from(self.next()) << 64 | u128::from(self.next());
            let id = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid();
            if id.as_bytes()[0] >> 2 != DASH {
                return id;
            }
        }
    }
}
