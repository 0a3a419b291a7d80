//! Incremental fetch sessions (KIP-227): a consumer names its partitions once, and from then on only
//! what changes (pure: `now` is an argument).
//!
//! ```text
//! request (id, epoch)
//!   (any, 0)    full fetch; a session is made of it, an older one of this id is dropped
//!   (any, -1)   full fetch without a session; an older one of this id is dropped
//!   (id, n)     incremental: the session's partitions, changed as the request says; n counts up from 1
//! ```
//!
//! An incremental answer leaves out partitions without news. Whoever had data goes to the end of the
//! session's order, so that a busy partition cannot starve the others when `max_bytes` is small.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    hash::{Hash, Hasher},
};

use kafka_protocol::messages::TopicName;
use uuid::Uuid;

/// How long a session must have been silent before a new one may take its slot when all are taken
/// (Kafka's `min.incremental.fetch.session.eviction.ms`, which is not settable there).
const EVICTABLE_AFTER_MS: i64 = 120_000;

const EPOCH_NEW: i32 = 0;
const EPOCH_NONE: i32 = -1;

/// Which partition, as the request named it: by id since Fetch v13, else by name.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// With an id, the name that the topic had when it was asked for, empty if there was none. It says
    /// nothing about which partition it is.
    pub(crate) topic: TopicName,
    pub(crate) topic_id: Uuid,
    pub(crate) index: i32,
}

impl Key {
    fn identity(&self) -> (Uuid, Option<&TopicName>, i32) {
        let name = self.topic_id.is_nil().then_some(&self.topic);
        (self.topic_id, name, self.index)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// What is wanted of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) offset: i64,
    /// At most this many bytes, but always one batch if nothing else was found.
    pub(crate) max_bytes: i32,
    /// The leader epoch the client knows, or -1.
    pub(crate) leader_epoch: i32,
    /// The epoch of the last record it has, or -1.
    pub(crate) last_fetched_epoch: i32,
}

/// What a client was last told of a partition; news is what differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
    pub(crate) has_records: bool,
    pub(crate) is_error: bool,
}

/// The request, as far as sessions go.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) session_id: i32,
    pub(crate) epoch: i32,
    pub(crate) by_id: bool,
    pub(crate) wanted: Vec<(Key, Wanted)>,
    pub(crate) forgotten: Vec<Key>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotFound,
    InvalidEpoch,
    /// A session made with topic names was continued with ids, or the other way round.
    TopicIds,
}

/// Which partitions to read, and how to answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// 0 for an answer without a session.
    pub(crate) session_id: i32,
    /// Leave out what has no news.
    pub(crate) incremental: bool,
    pub(crate) wanted: Vec<(Key, Wanted)>,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    used_at: i64,
    partitions: HashMap<Key, Cached>,
    /// Invariant: holds exactly the keys of `partitions`, each under its `place`.
    order: BTreeMap<u64, Key>,
    next_place: u64,
}

#[derive(Debug)]
struct Cached {
    place: u64,
    wanted: Wanted,
    high_watermark: i64,
    log_start_offset: i64,
}

/// All sessions of a broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    sessions: HashMap<i32, Session>,
    /// `max.incremental.fetch.session.cache.slots`.
    sessions_max: usize,
    /// Partitions of all sessions together: what a client may make us remember.
    partitions_max: usize,
    partitions: usize,
}

impl FetchSessions {
    pub(crate) fn new(sessions_max: usize, partitions_max: usize) -> Self {
        Self {
            sessions: HashMap::new(),
            sessions_max,
            partitions_max,
            partitions: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Partitions of all sessions together.
    pub(crate) fn partitions(&self) -> usize {
        self.partitions
    }

    /// Decides what a request is about. `random` proposes ids for a new session.
    pub(crate) fn plan(
        &mut self,
        mut request: Request,
        now: i64,
        random: impl FnMut() -> i32,
    ) -> Result<Plan, Refusal> {
        if 1 < request.wanted.len() {
            request.wanted = last_of_each(request.wanted);
        }
        match request.epoch {
            EPOCH_NEW | EPOCH_NONE => {
                self.remove(request.session_id);
                let session_id = match request.epoch {
                    EPOCH_NEW => self.open(&request, now, random).unwrap_or(0),
                    _ => 0,
                };
                Ok(Plan {
                    session_id,
                    incremental: false,
                    wanted: request.wanted,
                })
            }
            _ => self.resume(request, now),
        }
    }

    /// Notes what is being told about a partition, and says whether it belongs in the answer.
    pub(crate) fn tell(&mut self, plan: &Plan, key: &Key, told: Told) -> bool {
        let cached = self.sessions.get_mut(&plan.session_id).and_then(|session| {
            let cached = session.partitions.get_mut(key)?;
            Some((cached, &mut session.order, &mut session.next_place))
        });
        let Some((cached, order, next_place)) = cached else {
            return true;
        };
        let news = told.has_records
            || told.is_error
            || cached.high_watermark != told.high_watermark
            || cached.log_start_offset != told.log_start_offset;
        // After an error everything is news again.
        cached.high_watermark = if told.is_error {
            -1
        } else {
            told.high_watermark
        };
        cached.log_start_offset = told.log_start_offset;
        if told.has_records && plan.incremental {
            order.remove(&cached.place);
            cached.place = *next_place;
            *next_place += 1;
            order.insert(cached.place, key.clone());
        }
        news || !plan.incremental
    }

    fn open(&mut self, request: &Request, now: i64, random: impl FnMut() -> i32) -> Option<i32> {
        if self.sessions_max <= self.sessions.len() {
            let (&oldest, session) = self
                .sessions
                .iter()
                .min_by_key(|(_, session)| session.used_at)?;
            if now - session.used_at < EVICTABLE_AFTER_MS {
                return None;
            }
            self.remove(oldest);
        }
        if self.partitions_max < self.partitions + request.wanted.len() {
            return None;
        }
        let mut ids = std::iter::repeat_with(random);
        let id = ids.find(|id| 0 < *id && !self.sessions.contains_key(id))?;
        let mut session = Session {
            epoch: 1,
            by_id: request.by_id,
            used_at: now,
            partitions: HashMap::with_capacity(request.wanted.len()),
            order: BTreeMap::new(),
            next_place: 0,
        };
        for (key, wanted) in &request.wanted {
            session.want(key.clone(), *wanted);
        }
        self.partitions += session.partitions.len();
        self.sessions.insert(id, session);
        Some(id)
    }

    fn resume(&mut self, request: Request, now: i64) -> Result<Plan, Refusal> {
        let id = request.session_id;
        let session = self.sessions.get_mut(&id).ok_or(Refusal::NotFound)?;
        if session.epoch != request.epoch {
            return Err(Refusal::InvalidEpoch);
        }
        if session.by_id != request.by_id {
            return Err(Refusal::TopicIds);
        }
        session.used_at = now;
        session.epoch = session.epoch.checked_add(1).unwrap_or(1);
        let before = session.partitions.len();
        for (key, wanted) in request.wanted {
            session.want(key, wanted);
        }
        for key in request.forgotten {
            session.forget(&key);
        }
        self.partitions = self.partitions + session.partitions.len() - before;
        let wanted = session.wanted();
        if wanted.is_empty() || self.partitions_max < self.partitions {
            // Nothing left to remember, or too much: this answer tells the client to begin anew.
            self.remove(id);
            return Ok(Plan {
                session_id: 0,
                incremental: false,
                wanted,
            });
        }
        Ok(Plan {
            session_id: id,
            incremental: true,
            wanted,
        })
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }
}

/// Each partition once, at the place where it first came and as it was wanted last.
fn last_of_each(wanted: Vec<(Key, Wanted)>) -> Vec<(Key, Wanted)> {
    let mut last: Vec<(Key, Wanted)> = Vec::with_capacity(wanted.len());
    let mut places = HashMap::with_capacity(wanted.len());
    for (key, wanted) in wanted {
        match places.entry(key.clone()) {
            Entry::Occupied(place) => {
                let place: usize = *place.get();
                last[place].1 = wanted;
            }
            Entry::Vacant(place) => {
                place.insert(last.len());
                last.push((key, wanted));
            }
        }
    }
    last
}

impl Session {
    fn want(&mut self, key: Key, wanted: Wanted) {
        if let Some(cached) = self.partitions.get_mut(&key) {
            cached.wanted = wanted;
            return;
        }
        let place = self.next_place;
        self.next_place += 1;
        self.order.insert(place, key.clone());
        let cached = Cached {
            place,
            wanted,
            high_watermark: -1,
            log_start_offset: -1,
        };
        self.partitions.insert(key, cached);
    }

    fn forget(&mut self, key: &Key) {
        if let Some(cached) = self.partitions.remove(key) {
            self.order.remove(&cached.place);
        }
    }

    fn wanted(&self) -> Vec<(Key, Wanted)> {
        let wanted = |key: &Key| {
            self.partitions
                .get(key)
                .map(|cached| (key.clone(), cached.wanted))
        };
        self.order.values().filter_map(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    fn key(index: i32) -> Key {
        let topic = TopicName(StrBytes::from_static_str("t"));
        Key {
            topic,
            topic_id: Uuid::nil(),
            index,
        }
    }

    fn request(session_id: i32, epoch: i32, wanted: &[(i32, i64)]) -> Request {
        let want = |&(index, offset): &(i32, i64)| {
            let wanted = Wanted {
                offset,
                max_bytes: 1000,
                leader_epoch: -1,
                last_fetched_epoch: -1,
            };
            (key(index), wanted)
        };
        Request {
            session_id,
            epoch,
            by_id: false,
            wanted: wanted.iter().map(want).collect(),
            forgotten: Vec::new(),
        }
    }

    fn indexes(plan: &Plan) -> Vec<i32> {
        plan.wanted.iter().map(|(key, _)| key.index).collect()
    }

    const QUIET: Told = Told {
        high_watermark: 5,
        log_start_offset: 0,
        has_records: false,
        is_error: false,
    };

    #[test]
    fn an_incremental_answer_leaves_out_what_has_no_news() {
        let mut sessions = FetchSessions::new(10, 100);
        let plan = sessions
            .plan(request(0, 0, &[(0, 5), (1, 5)]), 0, || 7)
            .expect("a new session");
        assert_eq!((plan.session_id, plan.incremental), (7, false));
        assert!(
            sessions.tell(&plan, &key(0), QUIET),
            "a full answer names every partition"
        );
        assert!(sessions.tell(&plan, &key(1), QUIET));

        let plan = sessions
            .plan(request(7, 1, &[]), 0, || 8)
            .expect("the next epoch");
        assert_eq!(indexes(&plan), [0, 1]);
        assert!(!sessions.tell(&plan, &key(0), QUIET));
        assert!(sessions.tell(
            &plan,
            &key(1),
            Told {
                high_watermark: 6,
                ..QUIET
            }
        ));

        let plan = sessions
            .plan(request(7, 2, &[]), 0, || 8)
            .expect("the next epoch");
        let failed = Told {
            is_error: true,
            high_watermark: -1,
            log_start_offset: -1,
            ..QUIET
        };
        assert!(sessions.tell(&plan, &key(0), failed));
        let plan = sessions
            .plan(request(7, 3, &[]), 0, || 8)
            .expect("the next epoch");
        assert!(
            sessions.tell(&plan, &key(0), failed),
            "an error is told each time"
        );
    }

    #[test]
    fn a_partition_with_data_goes_to_the_end() {
        let mut sessions = FetchSessions::new(10, 100);
        sessions
            .plan(request(0, 0, &[(0, 0), (1, 0), (2, 0)]), 0, || 7)
            .expect("a new session");
        let plan = sessions
            .plan(request(7, 1, &[]), 0, || 8)
            .expect("the next epoch");
        sessions.tell(
            &plan,
            &key(0),
            Told {
                has_records: true,
                ..QUIET
            },
        );
        let plan = sessions
            .plan(request(7, 2, &[(1, 9)]), 0, || 8)
            .expect("the next epoch");
        assert_eq!(indexes(&plan), [1, 2, 0]);
        assert_eq!(plan.wanted[0].1.offset, 9);
    }

    #[test]
    fn a_partition_wanted_twice_is_wanted_as_the_last_time() {
        let mut sessions = FetchSessions::new(10, 100);
        let request = request(0, -1, &[(1, 5), (0, 6), (1, 7)]);
        let plan = sessions.plan(request, 0, || 7).expect("an answer");
        assert_eq!(indexes(&plan), [1, 0]);
        assert_eq!(plan.wanted[0].1.offset, 7);
    }

    #[test]
    fn epochs_count_up_and_a_wrong_one_changes_nothing() {
        let mut sessions = FetchSessions::new(10, 100);
        sessions
            .plan(request(0, 0, &[(0, 0)]), 0, || 7)
            .expect("a new session");
        assert_eq!(
            sessions.plan(request(7, 2, &[]), 0, || 8),
            Err(Refusal::InvalidEpoch)
        );
        assert_eq!(
            sessions.plan(request(9, 1, &[]), 0, || 8),
            Err(Refusal::NotFound)
        );
        assert_eq!(
            sessions.plan(request(0, 1, &[]), 0, || 8),
            Err(Refusal::NotFound)
        );
        let by_id = Request {
            by_id: true,
            ..request(7, 1, &[])
        };
        assert_eq!(sessions.plan(by_id, 0, || 8), Err(Refusal::TopicIds));
        assert!(sessions.plan(request(7, 1, &[]), 0, || 8).is_ok());
    }

    #[test]
    fn a_full_fetch_ends_the_session_it_names() {
        let mut sessions = FetchSessions::new(10, 100);
        sessions
            .plan(request(0, 0, &[(0, 0)]), 0, || 7)
            .expect("a new session");
        let plan = sessions
            .plan(request(7, 0, &[(0, 0)]), 0, || 8)
            .expect("another session");
        assert_eq!(plan.session_id, 8);
        assert_eq!(
            sessions.plan(request(7, 1, &[]), 0, || 9),
            Err(Refusal::NotFound)
        );
        let plan = sessions
            .plan(request(8, -1, &[(0, 0)]), 0, || 9)
            .expect("a last answer");
        assert_eq!(plan.session_id, 0);
        assert_eq!((sessions.len(), sessions.partitions()), (0, 0));
    }

    #[test]
    fn forgetting_all_partitions_ends_the_session() {
        let mut sessions = FetchSessions::new(10, 100);
        sessions
            .plan(request(0, 0, &[(0, 0)]), 0, || 7)
            .expect("a new session");
        let forget = Request {
            forgotten: vec![key(0)],
            ..request(7, 1, &[])
        };
        assert_eq!(
            sessions.plan(forget, 0, || 8).map(|plan| plan.session_id),
            Ok(0)
        );
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn with_all_slots_taken_only_a_silent_session_gives_way() {
        let mut sessions = FetchSessions::new(1, 100);
        sessions
            .plan(request(0, 0, &[(0, 0)]), 0, || 7)
            .expect("a new session");
        let busy = sessions
            .plan(request(0, 0, &[(1, 0)]), 119_999, || 8)
            .expect("an answer");
        assert_eq!(busy.session_id, 0, "answered without a session");
        let late = sessions
            .plan(request(0, 0, &[(1, 0)]), 120_000, || 8)
            .expect("an answer");
        assert_eq!((late.session_id, sessions.len()), (8, 1));
    }

    #[test]
    fn what_clients_make_us_remember_is_bounded() {
        let mut sessions = FetchSessions::new(10, 2);
        let plan = sessions
            .plan(request(0, 0, &[(0, 0), (1, 0)]), 0, || 7)
            .expect("fits");
        assert_eq!(plan.session_id, 7);
        let plan = sessions
            .plan(request(0, 0, &[(2, 0)]), 0, || 8)
            .expect("an answer");
        assert_eq!(plan.session_id, 0);
        let plan = sessions
            .plan(request(7, 1, &[(2, 0)]), 0, || 8)
            .expect("an answer");
        assert_eq!((plan.session_id, indexes(&plan)), (0, vec![0, 1, 2]));
        assert_eq!(sessions.partitions(), 0);
    }
}
