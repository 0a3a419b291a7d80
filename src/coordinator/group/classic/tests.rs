//! A machine without its runtime, and clients of it: scripts for every rule, and clients at random.

mod random;
mod scripts;

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use protocol::error::ErrorCode;
use replication::cluster::ClusterImage;
use uuid::Uuid;

use crate::{
    Config,
    coordinator::{
        Answer, Effects, Env, Machine, Origin, Ticket,
        group::{
            GroupCoordinator,
            request::{Client, Request, Sent},
        },
    },
};

/// What the runtime does around a machine, with a clock that stands still until it is told.
struct Bench {
    machine: GroupCoordinator,
    config: Config,
    image: Arc<ClusterImage>,
    now: i64,
    ids: u128,
    tickets: u64,
    waiting: HashSet<u64>,
    /// What was appended, in the form in which it is written.
    log: Vec<(Bytes, Option<Bytes>)>,
    /// The next append fails with this.
    failure: Option<ErrorCode>,
    /// What was answered to which ticket, and not looked at yet.
    answered: Vec<(u64, Answer<GroupCoordinator>)>,
}

impl Bench {
    fn new(settings: &[(&str, &str)]) -> Self {
        Self {
            machine: GroupCoordinator::default(),
            config: Config::single_node(settings).expect("a configuration"),
            image: Arc::new(ClusterImage::empty("tests")),
            now: 0,
            ids: 0,
            tickets: 0,
            waiting: HashSet::new(),
            log: Vec::new(),
            failure: None,
            answered: Vec::new(),
        }
    }

    /// The machine that another broker would make of the log.
    fn reload(&mut self) {
        self.machine = GroupCoordinator::default();
        self.waiting.clear();
        for (offset, (key, value)) in (0..).zip(self.log.clone()) {
            let record = GroupCoordinator::decode(key, value).expect("a record");
            let origin = Origin {
                offset,
                producer: None,
            };
            self.machine.replay(record.expect("a known one"), origin);
        }
        self.with_env(|machine, env| machine.classic_loaded(env));
    }

    fn ask(&mut self, request: Request) -> u64 {
        self.tickets += 1;
        let number = self.tickets;
        self.waiting.insert(number);
        let ticket = Ticket::new(number);
        let effects = self.with_env(|machine, env| machine.handle(ticket, request, env));
        self.carry_out(effects);
        number
    }

    /// Lets this much time pass, and everything happen that is due meanwhile.
    fn wait(&mut self, ms: i64) {
        let until = self.now + ms;
        while let Some(at) = self.machine.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let mut count = 0;
            while let Some(effects) = self.with_env(Machine::tick) {
                self.carry_out(effects);
                count += 1;
                assert!(count < 1000, "something is due again and again");
            }
        }
        self.now = until;
    }

    fn with_env<T>(&mut self, work: impl FnOnce(&mut GroupCoordinator, &mut Env<'_>) -> T) -> T {
        let mut new_id = || {
            self.ids += 1;
            Uuid::from_u128(self.ids)
        };
        let mut env = Env {
            now: self.now,
            steady_now: self.now,
            image: &self.image,
            config: &self.config,
            records_bytes_max: usize::MAX,
            new_id: &mut new_id,
        };
        work(&mut self.machine, &mut env)
    }

    fn carry_out(&mut self, effects: Effects<GroupCoordinator>) {
        let Effects {
            append,
            answers,
            then,
            ..
        } = effects;
        let failure = match append.is_empty() {
            true => None,
            false => self.failure.take(),
        };
        let written = failure.map_or(Ok(()), Err);
        if let Some(code) = failure {
            let append = append.clone();
            let failed = self.with_env(|machine, env| machine.append_failed(append, code, env));
            for (ticket, answer) in failed {
                self.give(&ticket, answer);
            }
        }
        for record in append.into_iter().filter(|_| written.is_ok()) {
            let (key, value) = GroupCoordinator::encoded(&record).unwrap();
            self.log.push((key.clone(), value.clone()));
            let record = GroupCoordinator::decode(key, value).expect("what was encoded");
            let origin = Origin {
                offset: 0,
                producer: None,
            };
            self.machine.replay(record.expect("a known one"), origin);
        }
        for (ticket, answer) in answers {
            self.give(&ticket, written.and(answer));
        }
        if let Some(then) = then {
            let answers = self.with_env(|machine, env| then.run(machine, written, env));
            for (ticket, answer) in answers {
                self.give(&ticket, answer);
            }
        }
    }

    fn give(&mut self, ticket: &Ticket, answer: Answer<GroupCoordinator>) {
        let number = ticket.number();
        // Every ticket is answered once.
        assert!(
            self.waiting.remove(&number),
            "{answer:?} was not waited for"
        );
        self.answered.push((number, answer));
    }

    fn group(&self, group_id: &str) -> String {
        match self.machine.groups.get(group_id) {
            Some(super::Group::Classic(group)) => short(&group.to_string()),
            Some(_) => "of another kind".to_owned(),
            None => "none".to_owned(),
        }
    }
}

fn from<T>(client_id: &str, version: i16, body: T) -> Sent<T> {
    let client = Client {
        version,
        id: Arc::from(client_id),
        address: [127, 0, 0, 1].into(),
    };
    Sent { client, body }
}

/// Ids that a [`Bench`] makes count from 1.
fn short(text: &str) -> String {
    text.replace("00000000-0000-0000-0000-00000000000", "")
}
