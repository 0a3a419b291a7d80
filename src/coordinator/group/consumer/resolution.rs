//! What members' expressions match, found out beside the coordinator: it takes milliseconds an expression, in which all
//! groups of the partition would wait.
//!
//! 1. It is time: [`GroupCoordinator::resolve`] says which expressions are to be held against which topics.
//! 2. A task does it, and tells the machine what has come of it.
//! 3. [`GroupCoordinator::resolved`] writes down what is new, and the group's epoch goes on if it reads something else.
//!
//! A task that is not heard of is begun again.

use std::{collections::BTreeMap, sync::Arc};

use protocol::error::ErrorCode;
use replication::cluster::ClusterImage;
use tracing::warn;

use super::{ConsumerGroup, Timer, epoch_record, regex::Resolved};
use crate::coordinator::{
    Env, Then, Ticket,
    group::{Effects, Group, GroupCoordinator, request::Response},
};

/// Expressions are resolved again when topics have changed, at most this often, and in any case after so long (ms).
const REFRESH_MIN_MS: i64 = 10_000;
const REFRESH_MAX_MS: i64 = 600_000;

/// For so long a task is waited for (ms).
const TASK_MS: i32 = 60_000;

/// Members can bring as many expressions as they are: so many are resolved at a time, and then others have their turn
/// for so long (ms).
pub(super) const AT_ONCE: usize = 8;
const REST_MS: i32 = 50;

/// What a coordinator says of records that do not fit a batch.
const TOO_LARGE: ErrorCode = ErrorCode::UnknownServerError;

/// Expressions of a group, and the topics to hold them against.
#[derive(Debug)]
pub(crate) struct ResolveExpressions {
    group_id: Arc<str>,
    patterns: Vec<Arc<str>>,
    image: Arc<ClusterImage>,
    now: i64,
    round: Round,
}

/// What has come of it.
#[derive(Debug)]
pub(crate) struct Resolution {
    group_id: Arc<str>,
    found: Vec<(Arc<str>, Resolved)>,
    round: Round,
}

/// What is known of a group's expressions when these have been resolved.
#[derive(Debug)]
struct Round {
    /// See [`super::Looked::pass`].
    pass: Option<(i64, Arc<str>)>,
    /// All of them have been resolved in the metadata of this offset.
    completes: Option<i64>,
}

impl ResolveExpressions {
    /// Compiles and matches. Takes time.
    pub(crate) fn run(self) -> Resolution {
        let found = self.patterns.into_iter().map(|pattern| {
            let resolved = Resolved::new(&pattern, &self.image, self.now);
            (pattern, resolved)
        });
        Resolution {
            found: found.collect(),
            group_id: self.group_id,
            round: self.round,
        }
    }
}

impl GroupCoordinator {
    /// Has the expressions of a group resolved that are new, or all of them if that was long ago.
    pub(super) fn resolve(&mut self, group_id: &Arc<str>, env: &Env<'_>) -> Effects {
        let Some(Group::Consumer(group)) = self.groups.get(group_id) else {
            return Effects::default();
        };
        // New expressions are resolved by themselves: whoever changes his own all the time cannot have the broker resolve
        // everybody else's as often. (A real broker lets them wait for the ten seconds to be over.)
        let mut patterns: Vec<&Arc<str>> = group.new_patterns(env.steady_now).collect();
        let mut pass = group.looked.pass.clone();
        let begun_in = pass.as_ref().map_or(env.image.offset, |(begun, _)| *begun);
        let goes_on = patterns.is_empty() && (pass.is_some() || group.are_regexes_old(env));
        if goes_on {
            let resolved = pass.as_ref().map(|(_, last)| last);
            let rest = group.patterns().filter(|it| resolved < Some(*it));
            patterns = rest
                .filter(|it| !group.is_too_large(it, env.steady_now))
                .collect();
        }
        let at_once = group.looked.regexes_at_once;
        let is_all = patterns.len() <= at_once;
        patterns.truncate(at_once);
        if goes_on {
            let last = patterns.last().filter(|_| !is_all);
            pass = last.map(|last| (begun_in, Arc::clone(last)));
        }
        let task = ResolveExpressions {
            group_id: Arc::clone(group_id),
            patterns: patterns.into_iter().cloned().collect(),
            image: Arc::clone(env.image),
            now: env.now,
            round: Round {
                pass,
                completes: (goes_on && is_all).then_some(begun_in),
            },
        };
        self.set_timer(group_id, Timer::Regexes, TASK_MS, env);
        Effects {
            tasks: vec![task],
            ..Effects::default()
        }
    }

    /// Writes down what expressions match now, as far as it is something else than before.
    pub(in super::super) fn resolved(
        &mut self,
        ticket: Ticket,
        resolution: Resolution,
        env: &Env<'_>,
    ) -> Effects {
        let Resolution {
            group_id,
            found,
            round,
        } = resolution;
        let answer = Effects::answer(ticket, Ok(Response::Resolved(())));
        let Some(Group::Consumer(group)) = self.groups.get(&group_id) else {
            return answer;
        };
        let mut regexes = group.regexes.clone();
        let mut append = Vec::new();
        let mut is_other = false;
        let alone = match &*found {
            [(pattern, resolved)] => Some((Arc::clone(pattern), resolved.topics.len())),
            _ => None,
        };
        for (pattern, resolved) in found {
            let before = regexes.get(&pattern);
            // Its members may have left meanwhile, and another task may have been faster.
            let is_late = before.is_some_and(|before| resolved.version < before.version);
            if is_late || group.regex_subscribers(&pattern) == 0 {
                continue;
            }
            let topics = before.map(|before| &*before.topics).unwrap_or_default();
            let has_changed = *topics != *resolved.topics;
            let is_old = before.is_none_or(|it| it.timestamp + REFRESH_MAX_MS <= env.now);
            if has_changed || is_old {
                append.push(resolved.record(&group_id, &pattern));
                regexes.insert(pattern, resolved);
            }
            is_other |= has_changed;
        }
        if is_other {
            let hash = group.hash(&BTreeMap::new(), &regexes, env.image);
            append.push(epoch_record(&group_id, group.epoch + 1, hash));
        }
        let now = env.steady_now;
        let then = move |machine: &mut Self, written: Result<(), ErrorCode>, env: &mut Env<'_>| {
            let Some(Group::Consumer(group)) = machine.groups.get_mut(&group_id) else {
                return Vec::new();
            };
            let mut goes_on = true;
            let is_too_large = written == Err(TOO_LARGE);
            if is_too_large {
                // From now on each by itself, so that one does not keep the others from being written down.
                group.looked.regexes_at_once = 1;
                if let Some((pattern, topic_count)) = &alone {
                    warn!(
                        ?group_id,
                        ?pattern,
                        topic_count,
                        "an expression matches more topics than fit a batch of __consumer_offsets: its members are \
                         given none of them; see max.message.bytes",
                    );
                    group.rest(pattern, now + REFRESH_MAX_MS);
                }
            }
            if written.is_ok() || is_too_large && alone.is_some() {
                let looked = &mut group.looked;
                looked.pass = round.pass;
                if let Some(begun_in) = round.completes {
                    looked.regexes = begun_in;
                    looked.regexes_at = now;
                }
                goes_on = looked.pass.is_some() || group.new_patterns(now).next().is_some();
            } else if !is_too_large {
                group.looked.regexes_rest_until = now + REFRESH_MIN_MS;
                goes_on = false;
            }
            match goes_on {
                true => machine.set_timer(&group_id, Timer::Regexes, REST_MS, env),
                false => machine.cancel_timer(&group_id, Timer::Regexes),
            }
            Vec::new()
        };
        Effects {
            append,
            then: Some(Then::new(then)),
            ..answer
        }
    }
}

impl ConsumerGroup {
    /// Is there an expression that is new, or may match something else now?
    pub(super) fn is_refresh_due(&self, env: &Env<'_>) -> bool {
        self.looked.regexes_rest_until <= env.steady_now
            && (self.new_patterns(env.steady_now).next().is_some() || self.are_regexes_old(env))
    }

    /// Expressions of which it is not known what they match, but could be.
    fn new_patterns(&self, now: i64) -> impl Iterator<Item = &Arc<str>> {
        let is_known = |pattern: &Arc<str>| self.regexes.contains_key(pattern);
        self.patterns()
            .filter(move |pattern| !is_known(pattern) && !self.is_too_large(pattern, now))
    }

    /// What this expression matches is more than can be written down.
    fn rest(&mut self, pattern: &Arc<str>, until: i64) {
        let mut resting = std::mem::take(&mut self.looked.regexes_too_large);
        resting.retain(|pattern, _| 0 < self.regex_subscribers(pattern));
        resting.insert(Arc::clone(pattern), until);
        self.looked.regexes_too_large = resting;
    }

    fn is_too_large(&self, pattern: &Arc<str>, now: i64) -> bool {
        let until = self.looked.regexes_too_large.get(pattern);
        until.is_some_and(|until| now < *until)
    }

    fn are_regexes_old(&self, env: &Env<'_>) -> bool {
        let Some(oldest) = self.regexes.values().map(|it| it.timestamp).min() else {
            return false;
        };
        let other_topics = self.looked.regexes != env.image.offset;
        (other_topics && self.looked.regexes_at + REFRESH_MIN_MS <= env.steady_now)
            || oldest + REFRESH_MAX_MS <= env.now
    }
}
