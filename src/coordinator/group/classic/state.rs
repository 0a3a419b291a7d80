//! What a group of the classic protocol is doing.
//!
//! ```text
//!              a member joins                  all have joined, or time is up
//!      Empty ----------------> PreparingRebalance ----------------> CompletingRebalance
//!        ^                        |          ^                        |
//!        +---- nobody is left ----+          |                        | the leader's assignment is written
//!                                            |                        v
//!                                            +--- members change --- Stable
//! ```

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody is in it; what it has committed is kept.
    Empty,
    /// Its members are called to join again.
    PreparingRebalance,
    /// A generation has begun, and its members wait for the leader's assignment.
    CompletingRebalance,
    /// Everybody has an assignment.
    Stable,
}

/// A group that is not there, as tools are shown it. None of ours is ever in this state: with its group goes its
/// place in the map.
pub(super) const DEAD: &str = "Dead";

impl State {
    /// As Kafka's tools print it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
