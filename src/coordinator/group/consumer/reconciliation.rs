//! How a member comes from what it has to what it is to have (pure).
//!
//! ```text
//!                      has to give something back
//!   Stable, Unreleased --------------------------> Unrevoked
//!      ^        ^                                     |
//!      |        |  has given back, others have not    |
//!      |        +-------------------------------------+
//!      |           has given back, all is free        |
//!      +----------------------------------------------+
//! ```
//!
//! - What it has to give back comes first, and holds it in its epoch until it says that it no longer has it.
//! - Then it comes into the epoch of the target, and gets what is free of it; the rest as others give it back.
//! - So nobody is given a partition that somebody else may still be reading.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{
    super::assignor::Partitions,
    member::{Current, Owned, State},
};

/// What a member is led to.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Goal<'a> {
    pub(in super::super) epoch: i32,
    pub(in super::super) target: &'a Partitions,
    /// The topics that it reads now. The target may be older than its newest subscription; what it no longer reads it
    /// gives back at once.
    pub(in super::super) subscribed: &'a BTreeSet<Uuid>,
    pub(in super::super) subscription_changed: bool,
    /// What the member says that it has; `None` if it does not say.
    pub(in super::super) owned: Option<&'a Partitions>,
}

/// The member's state is one that this version does not know: it has to start again from nothing.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct UnknownState;

impl Current {
    /// The next step, or `None` if there is none to take. `is_free` says whether nobody has a partition.
    pub(in super::super) fn reconcile(
        &self,
        goal: Goal<'_>,
        is_free: impl Fn(Uuid, i32) -> bool,
    ) -> Result<Option<Self>, UnknownState> {
        let next = match self.state {
            State::Stable if self.epoch == goal.epoch => {
                goal.subscription_changed.then(|| self.unsubscribe(goal))
            }
            State::Stable | State::Unreleased => Some(self.advance(goal, self.epoch, is_free)),
            State::Unrevoked if may_own(goal.owned, &self.revoking) => {
                goal.subscription_changed.then(|| self.unsubscribe(goal))
            }
            // It has all that it is to have in the epoch after its own, if there is one: it may have given back what it
            // does not read any more. The target may have gone on since.
            State::Unrevoked => {
                let epoch = goal.epoch.min(self.epoch + 1);
                Some(self.advance(goal, epoch, is_free))
            }
            State::Unknown if goal.owned.is_some_and(BTreeMap::is_empty) => {
                Some(self.advance(goal, goal.epoch, is_free))
            }
            State::Unknown => return Err(UnknownState),
        };
        // Waiting for the same is no step.
        let previous_epoch = self.previous_epoch;
        let is_step = |next: &Self| {
            Self {
                previous_epoch,
                ..next.clone()
            } != *self
        };
        Ok(next.filter(is_step))
    }

    fn advance(&self, goal: Goal<'_>, epoch: i32, is_free: impl Fn(Uuid, i32) -> bool) -> Self {
        let target = |topic: &Uuid| {
            let target = goal.target.get(topic);
            target.filter(|_| goal.subscribed.contains(topic))
        };
        let mut assigned = Owned::new();
        let mut revoking = Owned::new();
        for (topic, partitions) in &self.assigned {
            let wanted = target(topic);
            for (&index, &since) in partitions {
                let stays = wanted.is_some_and(|wanted| wanted.contains(&index));
                let to = if stays { &mut assigned } else { &mut revoking };
                to.entry(*topic).or_default().insert(index, since);
            }
        }
        if !revoking.is_empty() && may_own(goal.owned, &revoking) {
            return Self {
                epoch,
                previous_epoch: self.epoch,
                state: State::Unrevoked,
                assigned,
                revoking,
            };
        }
        let mut state = State::Stable;
        for topic in goal.target.keys() {
            for &index in target(topic).into_iter().flatten() {
                let has = self.assigned.get(topic);
                if has.is_some_and(|has| has.contains_key(&index)) {
                    continue;
                }
                if is_free(*topic, index) {
                    let partitions = assigned.entry(*topic).or_default();
                    partitions.insert(index, goal.epoch);
                } else {
                    state = State::Unreleased;
                }
            }
        }
        Self {
            previous_epoch: self.epoch,
            epoch: goal.epoch,
            state,
            assigned,
            revoking: Owned::new(),
        }
    }

    /// Takes what the member no longer reads, and nothing else.
    fn unsubscribe(&self, goal: Goal<'_>) -> Self {
        let mut assigned = self.assigned.clone();
        let mut revoking = self.revoking.clone();
        let unread: Vec<Uuid> = assigned
            .keys()
            .filter(|topic| !goal.subscribed.contains(topic))
            .copied()
            .collect();
        if unread.is_empty() {
            return self.clone();
        }
        for topic in unread {
            let partitions = assigned.remove(&topic).unwrap_or_default();
            revoking.entry(topic).or_default().extend(partitions);
        }
        let state = if may_own(goal.owned, &revoking) {
            State::Unrevoked
        } else {
            revoking = self.revoking.clone();
            self.state
        };
        Self {
            epoch: self.epoch,
            previous_epoch: self.epoch,
            state,
            assigned,
            revoking,
        }
    }
}

/// Has the member, by what it says, any of these still? If it does not say, it may.
fn may_own(owned: Option<&Partitions>, revoking: &Owned) -> bool {
    let Some(owned) = owned else { return true };
    owned.iter().any(|(topic, indexes)| {
        let revoking = revoking.get(topic);
        revoking.is_some_and(|revoking| indexes.iter().any(|index| revoking.contains_key(index)))
    })
}
