//! What Apache Kafka 4.4.0 does, as scripts.
//!
//! A line is `command = answers | group afterwards`. Clients have a letter, which is their client id; they
//! remember the member id and the generation they were told last. Ids end in the number of the id, `a-1`. A record
//! that is written is shown as `wrote GENERATION PROTOCOL MEMBER=ASSIGNMENT`.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
    join_group_request::JoinGroupRequestProtocol, leave_group_request::MemberIdentity,
    sync_group_request::SyncGroupRequestAssignment,
};
use protocol::{error::ErrorCode, records::group::GroupRecord};

use super::{Bench, Bytes, from, short};
use crate::coordinator::{
    Answer, Machine,
    group::{
        GroupCoordinator,
        request::{DescribeGroups, ListFilter, Request, Response},
    },
};

/// A client as the scripts have it.
#[derive(Debug, Default)]
struct Known {
    member_id: String,
    generation: i32,
}

struct Script {
    bench: Bench,
    clients: BTreeMap<String, Known>,
    /// Who waits with which ticket.
    asked: BTreeMap<u64, String>,
    written: usize,
}

#[track_caller]
fn check(script: &str) {
    check_with(&[], script);
}

#[track_caller]
fn check_with(settings: &[(&str, &str)], script: &str) {
    let mut all = vec![("group.initial.rebalance.delay.ms", "0")];
    all.extend_from_slice(settings);
    let mut run = Script {
        bench: Bench::new(&all),
        clients: BTreeMap::new(),
        asked: BTreeMap::new(),
        written: 0,
    };
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (command, want) = line.split_once(" = ").expect("command = expectation");
        run.command(command);
        let got = format!("{} | {}", run.news(), run.bench.group("g"));
        assert_eq!(got.trim(), want.trim(), "after `{}`", command.trim());
    }
}

impl Script {
    fn command(&mut self, command: &str) {
        let mut words = command.split_whitespace();
        let verb = words.next().expect("a verb");
        let words: Vec<&str> = words.collect();
        let options: BTreeMap<&str, &str> = words
            .iter()
            .filter_map(|word| word.split_once('='))
            .collect();
        let number = |name: &str, default: i32| {
            options
                .get(name)
                .map_or(default, |text| text.parse().expect("a number"))
        };
        let client = words.first().copied();
        let client = client.filter(|word| !word.contains('='));
        let client = client.unwrap_or_default();
        let known = self.clients.entry(client.to_owned()).or_default();
        let member_id = match options.get("id") {
            Some(id) => long(id),
            None => known.member_id.clone(),
        };
        let generation = number("gen", known.generation);
        let version = |newest: i16| i16::try_from(number("v", newest.into())).expect("a version");
        let instance = options.get("i").map(|id| (*id).to_owned().into());
        let group_id = GroupId("g".into());
        let request = match verb {
            "join" => {
                let protocols = options.get("p").copied().unwrap_or("range:m");
                let protocols = protocols.split(',').filter(|it| !it.is_empty());
                let protocols = protocols.map(|protocol| {
                    let (name, metadata) = protocol.split_once(':').expect("name:metadata");
                    JoinGroupRequestProtocol::default()
                        .with_name(name.to_owned().into())
                        .with_metadata(Bytes::copy_from_slice(metadata.as_bytes()))
                });
                let kind = options.get("type").copied().unwrap_or("consumer");
                let body = JoinGroupRequest::default()
                    .with_group_id(group_id)
                    .with_member_id(member_id.into())
                    .with_group_instance_id(instance)
                    .with_session_timeout_ms(number("session", 10_000))
                    .with_rebalance_timeout_ms(number("rebalance", 60_000))
                    .with_protocol_type(kind.to_owned().into())
                    .with_protocols(protocols.collect());
                Request::Join(from(client, version(9), body))
            }
            "sync" => {
                let given = words.iter().filter_map(|word| word.split_once("->"));
                let given = given.map(|(id, part)| {
                    SyncGroupRequestAssignment::default()
                        .with_member_id(long(id).into())
                        .with_assignment(Bytes::copy_from_slice(part.as_bytes()))
                });
                let text = |name| {
                    options
                        .get(name)
                        .map(|text: &&str| (*text).to_owned().into())
                };
                let body = SyncGroupRequest::default()
                    .with_group_id(group_id)
                    .with_member_id(member_id.into())
                    .with_group_instance_id(instance)
                    .with_generation_id(generation)
                    .with_protocol_type(text("type"))
                    .with_protocol_name(text("p"))
                    .with_assignments(given.collect());
                Request::Sync(from(client, 5, body))
            }
            "heartbeat" => {
                let body = HeartbeatRequest::default()
                    .with_group_id(group_id)
                    .with_member_id(member_id.into())
                    .with_group_instance_id(instance)
                    .with_generation_id(generation);
                Request::Heartbeat(from(client, 4, body))
            }
            "leave" => {
                let member = MemberIdentity::default()
                    .with_member_id(member_id.into())
                    .with_group_instance_id(instance);
                let others = words.iter().filter_map(|word| word.strip_prefix('+'));
                let others = others.map(|id| {
                    let member_id = match self.clients.get(id) {
                        Some(known) => known.member_id.clone(),
                        None => long(id),
                    };
                    MemberIdentity::default().with_member_id(member_id.into())
                });
                let members: Vec<MemberIdentity> = [member].into_iter().chain(others).collect();
                let body = LeaveGroupRequest::default()
                    .with_group_id(group_id)
                    .with_members(members);
                Request::Leave(from(client, 5, body))
            }
            "describe" => Request::Describe(DescribeGroups {
                group_ids: vec!["g".into()],
                version: version(6),
            }),
            "list" => {
                let list = |name| {
                    let texts = options.get(name).into_iter();
                    texts.flat_map(|texts| texts.split(','))
                };
                Request::List(ListFilter::new(list("states"), list("types")))
            }
            "commit" => {
                let member_id = known.member_id.clone();
                self.bench
                    .with_env(|machine, env| machine.classic_committed("g", &member_id, env));
                return;
            }
            "wait" => return self.bench.wait(client.parse().expect("milliseconds")),
            "fail" => {
                self.bench.failure = Some(ErrorCode::NotCoordinator);
                return;
            }
            "reload" => {
                self.asked.clear();
                return self.bench.reload();
            }
            _ => panic!("unknown command: {command}"),
        };
        // Before it is asked: the answer may come at once.
        self.asked.insert(self.bench.tickets + 1, client.to_owned());
        self.bench.ask(request);
    }

    /// What has been written and answered since this was last asked.
    fn news(&mut self) -> String {
        let mut news: Vec<String> = self.bench.log[self.written..]
            .iter()
            .map(|(key, value)| written(key.clone(), value.clone()))
            .collect();
        self.written = self.bench.log.len();
        let mut answers: Vec<String> = Vec::new();
        for (ticket, answer) in std::mem::take(&mut self.bench.answered) {
            let client = self.asked.remove(&ticket).expect("a client");
            let shown = shown(&answer);
            if let Ok(Response::Join(joined)) = &answer
                && !joined.member_id.is_empty()
            {
                let known = self.clients.entry(client.clone()).or_default();
                known.member_id = joined.member_id.to_string();
                known.generation = joined.generation_id;
            }
            answers.push(
                format!("{client}: {shown}")
                    .trim_start_matches(": ")
                    .to_owned(),
            );
        }
        answers.sort();
        news.extend(answers);
        news.join("; ")
    }
}

fn long(id: &str) -> String {
    match id.rsplit_once('-') {
        Some((name, number)) => format!("{name}-00000000-0000-0000-0000-00000000000{number}"),
        None => String::new(),
    }
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn written(key: Bytes, value: Option<Bytes>) -> String {
    let version = value.as_ref().map(|value| value[1]);
    let record = GroupCoordinator::decode(key, value).expect("a record");
    let Some(GroupRecord::GroupMetadata { value, .. }) = record else {
        panic!("{record:?}");
    };
    let Some(value) = value else {
        return "wrote nothing".to_owned();
    };
    assert_eq!(version, Some(3), "Kafka writes this version");
    let protocol = value.protocol.as_deref().unwrap_or("-");
    let members: String = value
        .members
        .iter()
        .map(|member| format!(" {}={}", member.member_id, text(&member.assignment)))
        .collect();
    short(&format!("wrote {} {protocol}{members}", value.generation))
}

fn shown(answer: &Answer<GroupCoordinator>) -> String {
    let code = |code: i16| match ErrorCode::try_from_code(code) {
        None => "ok".to_owned(),
        Some(code) => format!("{code:?}"),
    };
    let shown = match answer {
        Err(code) => format!("{code:?}"),
        Ok(Response::Join(joined)) if joined.error_code != 0 => {
            format!("{} {}", code(joined.error_code), joined.member_id)
        }
        Ok(Response::Join(joined)) => {
            let members: Vec<String> = joined
                .members
                .iter()
                .map(|member| format!("{}={}", member.member_id, text(&member.metadata)))
                .collect();
            let skip = if joined.skip_assignment { " skip" } else { "" };
            let protocol = joined.protocol_name.as_deref().unwrap_or("-");
            format!(
                "{} {protocol} of {} [{}]{skip}",
                joined.generation_id,
                joined.leader,
                members.join(" ")
            )
        }
        Ok(Response::Sync(synced)) => format!("has {}", text(&synced.assignment)),
        Ok(Response::Heartbeat(heartbeat)) => code(heartbeat.error_code),
        Ok(Response::Leave(left)) => {
            let members = left.members.iter().map(|member| code(member.error_code));
            members.collect::<Vec<String>>().join(" ")
        }
        Ok(Response::List(groups)) => {
            let groups = groups.iter().map(|group| {
                let (kind, state) = (&group.group_type, &group.group_state);
                let protocol = &group.protocol_type;
                format!(
                    "{} {} {} {}",
                    &*group.group_id.0, &**kind, &**state, &**protocol
                )
            });
            groups.collect::<Vec<String>>().join(" ")
        }
        Ok(Response::Describe(groups)) => {
            let group = &groups[0];
            let members = group.members.iter().map(|member| {
                format!(
                    " {} of {}{} {}:{}",
                    &*member.member_id,
                    &*member.client_id,
                    &*member.client_host,
                    text(&member.member_metadata),
                    text(&member.member_assignment)
                )
            });
            let members: String = members.collect();
            let (kind, protocol) = (&group.protocol_type, &group.protocol_data);
            let (error, state) = (code(group.error_code), &group.group_state);
            let message = group.error_message.as_deref().unwrap_or_default();
            format!(
                "{error} {message}{} {} {}{members}",
                &**state, &**kind, &**protocol
            )
        }
        Ok(other) => panic!("{other:?}"),
    };
    short(shown.trim_end())
}

#[test]
fn a_member_is_given_an_id_joins_leads_syncs_and_leaves() {
    check(
        "join a           = wrote 0 -; a: MemberIdRequired a-1 | Empty 0 (a-1)
         join a           =  | PreparingRebalance 0 a-1*+
         wait 0           = a: 1 range of a-1 [a-1=m] | CompletingRebalance 1 range a-1*
         heartbeat a      = a: ok | CompletingRebalance 1 range a-1*
         sync a a-1->all  = wrote 1 range a-1=all; a: has all | Stable 1 range a-1*
         heartbeat a      = a: ok | Stable 1 range a-1*
         sync a           = a: has all | Stable 1 range a-1*
         leave a          = wrote 2 -; a: ok | Empty 2
         heartbeat a      = a: UnknownMemberId | Empty 2
         sync a           = a: UnknownMemberId | Empty 2
         join a           = a: UnknownMemberId | Empty 2",
    );
}

#[test]
fn a_second_member_brings_a_rebalance_about() {
    check(
        "join a v=3        = wrote 0 - | PreparingRebalance 0 a-1*+
         wait 0            = a: 1 range of a-1 [a-1=m] | CompletingRebalance 1 range a-1*
         sync a a-1->all   = wrote 1 range a-1=all; a: has all | Stable 1 range a-1*
         join b v=3        =  | PreparingRebalance 1 range a-1* b-2+
         heartbeat a       = a: RebalanceInProgress | PreparingRebalance 1 range a-1* b-2+
         sync a            = a: RebalanceInProgress | PreparingRebalance 1 range a-1* b-2+
         join a            = a: 2 range of a-1 [a-1=m b-2=m]; b: 2 range of a-1 [] | CompletingRebalance 2 range a-1* b-2
         sync b            =  | CompletingRebalance 2 range a-1* b-2~
         heartbeat b gen=1 = b: IllegalGeneration | CompletingRebalance 2 range a-1* b-2~
         sync a a-1->x b-2->y = wrote 2 range a-1=x b-2=y; a: has x; b: has y | Stable 2 range a-1* b-2",
    );
}

#[test]
fn before_version_4_no_id_is_needed_and_in_version_0_one_time_out_is_for_all() {
    check(
        "join a v=0 session=8000 = wrote 0 - | PreparingRebalance 0 a-1*+
         wait 0           = a: 1 range of a-1 [a-1=m] | CompletingRebalance 1 range a-1*
         wait 7999        =  | CompletingRebalance 1 range a-1*
         wait 1           = wrote 2 - | Empty 2",
    );
}

#[test]
fn a_session_time_out_must_be_within_bounds() {
    check_with(
        &[
            ("group.min.session.timeout.ms", "6000"),
            ("group.max.session.timeout.ms", "30000"),
        ],
        "join a session=5999  = a: InvalidSessionTimeout | none
         join a session=30001 = a: InvalidSessionTimeout | none
         join a session=6000  = wrote 0 -; a: MemberIdRequired a-1 | Empty 0 (a-1)",
    );
}

#[test]
fn who_was_given_an_id_has_its_session_to_come_with_it() {
    check(
        "join a session=7000 = wrote 0 -; a: MemberIdRequired a-1 | Empty 0 (a-1)
         wait 6999        =  | Empty 0 (a-1)
         wait 1           =  | Empty 0
         join a           = a: UnknownMemberId | Empty 0",
    );
}

#[test]
fn a_group_waits_for_those_that_were_given_an_id() {
    check(
        "join a v=3       = wrote 0 - | PreparingRebalance 0 a-1*+
         wait 0           = a: 1 range of a-1 [a-1=m] | CompletingRebalance 1 range a-1*
         sync a           = wrote 1 range a-1=; a: has | Stable 1 range a-1*
         join b           = b: MemberIdRequired b-2 | Stable 1 range a-1* (b-2)
         join a           =  | PreparingRebalance 1 range a-1*+ (b-2)
         join b           = a: 2 range of a-1 [a-1=m b-2=m]; b: 2 range of a-1 [] | CompletingRebalance 2 range a-1* b-2
         join c           = c: MemberIdRequired c-3 | CompletingRebalance 2 range a-1* b-2 (c-3)
         join a p=range:n =  | PreparingRebalance 2 range a-1*+ b-2 (c-3)
         join b           =  | PreparingRebalance 2 range a-1*+ b-2+ (c-3)
         leave c          = a: 3 range of a-1 [a-1=n b-2=m]; b: 3 range of a-1 []; c: ok | CompletingRebalance 3 range a-1* b-2",
    );
}

#[test]
fn who_was_given_an_id_and_does_not_come_holds_nobody_up_for_ever() {
    check(
        "join a v=3       = wrote 0 - | PreparingRebalance 0 a-1*+
         wait 0           = a: 1 range of a-1 [a-1=m] | CompletingRebalance 1 range a-1*
         join b session=6000 = b: MemberIdRequired b-2 | CompletingRebalance 1 range a-1* (b-2)
         join a p=range:n =  | PreparingRebalance 1 range a-1*+ (b-2)
         wait 6000        = a: 2 range of a-1 [a-1=n] | CompletingRebalance 2 range a-1*",
    );
}

#[test]
fn an_empty_group_waits_for_more_members_while_they_come() {
    check_with(
        &[("group.initial.rebalance.delay.ms", "3000")],
        "join a v=3 rebalance=7000 = wrote 0 - | PreparingRebalance 0 a-1*+
         wait 2999        =  | PreparingRebalance 0 a-1*+
         join b v=3 rebalance=7000 =  | PreparingRebalance 0 a-1*+ b-2+
         wait 1           =  | PreparingRebalance 0 a-1*+ b-2+
         join c v=3 rebalance=7000 =  | PreparingRebalance 0 a-1*+ b-2+ c-3+
         wait 2999        =  | PreparingRebalance 0 a-1*+ b-2+ c-3+
         join d v=3       =  | PreparingRebalance 0 a-1*+ b-2+ c-3+ d-4+
         wait 1           =  | PreparingRebalance 0 a-1*+ b-2+ c-3+ d-4+
         wait 999         =  | PreparingRebalance 0 a-1*+ b-2+ c-3+ d-4+
         wait 1           = a: 1 range of a-1 [a-1=m b-2=m c-3=m d-4=m]; b: 1 range of a-1 []; c: 1 range of a-1 []; d: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2 c-3 d-4",
    );
}

/// Here Apache Kafka is not followed, which begins at once: whoever starts many members together would see a
/// generation for each few of them.
#[test]
fn an_empty_group_waits_a_moment_for_those_who_have_asked_for_an_id() {
    check(
        "join a           = wrote 0 -; a: MemberIdRequired a-1 | Empty 0 (a-1)
         join b           = b: MemberIdRequired b-2 | Empty 0 (a-1) (b-2)
         join c           = c: MemberIdRequired c-3 | Empty 0 (a-1) (b-2) (c-3)
         join a           =  | PreparingRebalance 0 a-1*+ (b-2) (c-3)
         wait 4           =  | PreparingRebalance 0 a-1*+ (b-2) (c-3)
         join b           =  | PreparingRebalance 0 a-1*+ b-2+ (c-3)
         wait 1           =  | PreparingRebalance 0 a-1*+ b-2+ (c-3)
         wait 5           = a: 1 range of a-1 [a-1=m b-2=m]; b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2 (c-3)",
    );
}

#[test]
fn an_empty_group_waits_no_longer_than_a_member_would() {
    check_with(
        &[("group.initial.rebalance.delay.ms", "3000")],
        "join a v=3 rebalance=2000 = wrote 0 - | PreparingRebalance 0 a-1*+
         join b v=3 rebalance=2000 =  | PreparingRebalance 0 a-1*+ b-2+
         wait 3000        = a: 1 range of a-1 [a-1=m b-2=m]; b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2",
    );
}

#[test]
fn who_does_not_join_within_the_longest_rebalance_time_out_is_no_member_any_more() {
    check(
        "join a v=3 session=100000 rebalance=20000 = wrote 0 - | PreparingRebalance 0 a-1*+
         join b v=3 session=100000 rebalance=30000 =  | PreparingRebalance 0 a-1*+ b-2+
         wait 0           = a: 1 range of a-1 [a-1=m b-2=m]; b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2
         sync b           =  | CompletingRebalance 1 range a-1* b-2~
         sync a a-1->x b-2->y = wrote 1 range a-1=x b-2=y; a: has x; b: has y | Stable 1 range a-1* b-2
         join c v=3       =  | PreparingRebalance 1 range a-1* b-2 c-3+
         join b           =  | PreparingRebalance 1 range a-1* b-2+ c-3+
         wait 59999       =  | PreparingRebalance 1 range a-1* b-2+ c-3+
         wait 1           = b: 2 range of b-2 [b-2=m c-3=m]; c: 2 range of b-2 [] | CompletingRebalance 2 range b-2* c-3
         heartbeat a      = a: UnknownMemberId | CompletingRebalance 2 range b-2* c-3",
    );
}

#[test]
fn who_does_not_ask_for_its_assignment_in_time_is_no_member_any_more() {
    check(
        "join a v=3 session=100000 rebalance=20000 = wrote 0 - | PreparingRebalance 0 a-1*+
         join b v=3 session=100000 rebalance=20000 =  | PreparingRebalance 0 a-1*+ b-2+
         wait 0           = a: 1 range of a-1 [a-1=m b-2=m]; b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2
         sync a a-1->x b-2->y = wrote 1 range a-1=x b-2=y; a: has x | Stable 1 range a-1* b-2
         wait 19999       =  | Stable 1 range a-1* b-2
         wait 1           =  | PreparingRebalance 1 range a-1*
         join a           = a: 2 range of a-1 [a-1=m] | CompletingRebalance 2 range a-1*
         wait 20000       = wrote 3 - | Empty 3",
    );
}

#[test]
fn a_session_that_ends_calls_the_others() {
    check(
        "join a v=3 session=10000 = wrote 0 - | PreparingRebalance 0 a-1*+
         join b v=3 session=6000 =  | PreparingRebalance 0 a-1*+ b-2+
         wait 0           = a: 1 range of a-1 [a-1=m b-2=m]; b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2
         sync b           =  | CompletingRebalance 1 range a-1* b-2~
         sync a a-1->x b-2->y = wrote 1 range a-1=x b-2=y; a: has x; b: has y | Stable 1 range a-1* b-2
         wait 5000        =  | Stable 1 range a-1* b-2
         heartbeat b      = b: ok | Stable 1 range a-1* b-2
         wait 4000        =  | Stable 1 range a-1* b-2
         commit a         =  | Stable 1 range a-1* b-2
         wait 2000        =  | PreparingRebalance 1 range a-1*
         heartbeat a      = a: RebalanceInProgress | PreparingRebalance 1 range a-1*
         wait 10000       = wrote 2 - | Empty 2",
    );
}

/// Who waits to join or to sync sends no heartbeats, and its session does not end.
#[test]
fn who_waits_is_alive() {
    check(
        "join a v=3 session=6000 = wrote 0 - | PreparingRebalance 0 a-1*+
         join b v=3 session=100000 =  | PreparingRebalance 0 a-1*+ b-2+
         wait 0           = a: 1 range of a-1 [a-1=m b-2=m]; b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2
         join a p=range:n =  | PreparingRebalance 1 range a-1*+ b-2
         wait 20000       =  | PreparingRebalance 1 range a-1*+ b-2
         join b           = a: 2 range of a-1 [a-1=n b-2=m]; b: 2 range of a-1 [] | CompletingRebalance 2 range a-1* b-2
         sync a a-1->x b-2->y = wrote 2 range a-1=x b-2=y; a: has x | Stable 2 range a-1* b-2",
    );
}

#[test]
fn a_new_member_waits_for_five_minutes_at_most() {
    check(
        "join a v=3 session=1800000 rebalance=1800000 = wrote 0 - | PreparingRebalance 0 a-1*+
         wait 0           = a: 1 range of a-1 [a-1=m] | CompletingRebalance 1 range a-1*
         sync a           = wrote 1 range a-1=; a: has | Stable 1 range a-1*
         join b v=3       =  | PreparingRebalance 1 range a-1* b-2+
         wait 299999      =  | PreparingRebalance 1 range a-1* b-2+
         wait 1           = b: UnknownMemberId | PreparingRebalance 1 range a-1*",
    );
}

#[test]
fn protocols_must_suit_all_members() {
    check(
        "join a v=3 p=         = wrote 0 -; a: InconsistentGroupProtocol | Empty 0
         join a v=3 p=range:m,sticky:s = | PreparingRebalance 0 a-1*+
         join b v=3 type=connect p=range:m = b: InconsistentGroupProtocol | PreparingRebalance 0 a-1*+
         join b v=3 p=other:m  = b: InconsistentGroupProtocol | PreparingRebalance 0 a-1*+
         join b v=3 p=other:m,sticky:t =  | PreparingRebalance 0 a-1*+ b-2+
         wait 0                = a: 1 sticky of a-1 [a-1=s b-2=t]; b: 1 sticky of a-1 [] | CompletingRebalance 1 sticky a-1* b-2
         sync a p=range        = a: InconsistentGroupProtocol | CompletingRebalance 1 sticky a-1* b-2
         sync a type=connect   = a: InconsistentGroupProtocol | CompletingRebalance 1 sticky a-1* b-2
         sync a type=consumer p=sticky = wrote 1 sticky a-1= b-2=; a: has | Stable 1 sticky a-1* b-2",
    );
}

#[test]
fn the_protocol_is_voted_for() {
    check(
        "join a v=3 p=range:m,sticky:s = wrote 0 - | PreparingRebalance 0 a-1*+
         join b v=3 p=sticky:s,range:m =  | PreparingRebalance 0 a-1*+ b-2+
         join c v=3 p=own:o,sticky:s,range:m =  | PreparingRebalance 0 a-1*+ b-2+ c-3+
         wait 0                = a: 1 sticky of a-1 [a-1=s b-2=s c-3=s]; b: 1 sticky of a-1 []; c: 1 sticky of a-1 [] | CompletingRebalance 1 sticky a-1* b-2 c-3",
    );
}

#[test]
fn the_leader_and_who_has_news_bring_a_rebalance_about_and_others_are_told_again() {
    check(
        "join a v=3       = wrote 0 - | PreparingRebalance 0 a-1*+
         join b v=3       =  | PreparingRebalance 0 a-1*+ b-2+
         wait 0           = a: 1 range of a-1 [a-1=m b-2=m]; b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2
         join a           = a: 1 range of a-1 [a-1=m b-2=m] | CompletingRebalance 1 range a-1* b-2
         join b           = b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2
         sync b           =  | CompletingRebalance 1 range a-1* b-2~
         join a p=range:n = b: RebalanceInProgress | PreparingRebalance 1 range a-1*+ b-2
         join b           = a: 2 range of a-1 [a-1=n b-2=m]; b: 2 range of a-1 [] | CompletingRebalance 2 range a-1* b-2
         sync b           =  | CompletingRebalance 2 range a-1* b-2~
         sync a           = wrote 2 range a-1= b-2=; a: has; b: has | Stable 2 range a-1* b-2
         join b           = b: 2 range of a-1 [] | Stable 2 range a-1* b-2
         join b p=range:n =  | PreparingRebalance 2 range a-1* b-2+
         join a p=range:n = a: 3 range of a-1 [a-1=n b-2=n]; b: 3 range of a-1 [] | CompletingRebalance 3 range a-1* b-2
         sync b           =  | CompletingRebalance 3 range a-1* b-2~
         sync a           = wrote 3 range a-1= b-2=; a: has; b: has | Stable 3 range a-1* b-2
         join a p=range:n =  | PreparingRebalance 3 range a-1*+ b-2",
    );
}

#[test]
fn a_group_has_no_more_members_than_it_may() {
    check_with(
        &[("group.max.size", "2")],
        "join a           = wrote 0 -; a: MemberIdRequired a-1 | Empty 0 (a-1)
         join b           = b: MemberIdRequired b-2 | Empty 0 (a-1) (b-2)
         join c           = c: MemberIdRequired c-3 | Empty 0 (a-1) (b-2) (c-3)
         join a           =  | PreparingRebalance 0 a-1*+ (b-2) (c-3)
         join b           =  | PreparingRebalance 0 a-1*+ b-2+ (c-3)
         join d           = d: GroupMaxSizeReached | PreparingRebalance 0 a-1*+ b-2+ (c-3)
         join c           = c: GroupMaxSizeReached | PreparingRebalance 0 a-1*+ b-2+
         wait 5           = a: 1 range of a-1 [a-1=m b-2=m]; b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2
         join c id=       = c: GroupMaxSizeReached | CompletingRebalance 1 range a-1* b-2
         join b           = b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2",
    );
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    check(
        "join a i=x       = wrote 0 - | PreparingRebalance 0 x-1*+
         join b i=y       =  | PreparingRebalance 0 x-1*+ y-2+
         wait 0           = a: 1 range of x-1 [x-1=m y-2=m]; b: 1 range of x-1 [] | CompletingRebalance 1 range x-1* y-2
         sync b i=y       =  | CompletingRebalance 1 range x-1* y-2~
         sync a i=x x-1->p y-2->q = wrote 1 range x-1=p y-2=q; a: has p; b: has q | Stable 1 range x-1* y-2
         join b id= i=y   = wrote 1 range x-1=p y-3=q; b: 1 range of x-1 [] | Stable 1 range x-1* y-3
         sync b i=y       = b: has q | Stable 1 range x-1* y-3
         heartbeat b i=y id=y-2 = b: FencedInstanceId | Stable 1 range x-1* y-3
         heartbeat b i=z  = b: UnknownMemberId | Stable 1 range x-1* y-3
         sync b i=y id=y-2 = b: FencedInstanceId | Stable 1 range x-1* y-3
         join b i=y id=y-2 = b: FencedInstanceId | Stable 1 range x-1* y-3
         leave b i=y id=y-2 = b: FencedInstanceId | Stable 1 range x-1* y-3
         join a id= i=x   = wrote 1 range y-3=q x-4=p; a: 1 range of x-4 [y-3=m x-4=m] skip | Stable 1 range x-4* y-3
         sync a i=x       = a: has p | Stable 1 range x-4* y-3",
    );
}

#[test]
fn an_old_static_leader_that_comes_back_is_not_told_that_it_leads() {
    check(
        "join a i=x       = wrote 0 - | PreparingRebalance 0 x-1*+
         wait 0           = a: 1 range of x-1 [x-1=m] | CompletingRebalance 1 range x-1*
         sync a x-1->p    = wrote 1 range x-1=p; a: has p | Stable 1 range x-1*
         join a id= i=x v=8 = wrote 1 range x-2=p; a: 1 range of x-1 [] | Stable 1 range x-2*
         sync a           = a: has p | Stable 1 range x-2*",
    );
}

#[test]
fn a_static_member_that_changes_the_vote_brings_a_rebalance_about() {
    check(
        "join a i=x p=range:m,sticky:s = wrote 0 - | PreparingRebalance 0 x-1*+
         wait 0           = a: 1 range of x-1 [x-1=m] | CompletingRebalance 1 range x-1*
         sync a x-1->p    = wrote 1 range x-1=p; a: has p | Stable 1 range x-1*
         join a id= i=x p=sticky:s = a: 2 sticky of x-2 [x-2=s] | CompletingRebalance 2 sticky x-2*",
    );
}

#[test]
fn a_static_member_that_is_replaced_while_it_waits_is_fenced() {
    check(
        "join a v=3 session=100000 = wrote 0 - | PreparingRebalance 0 a-1*+
         join b i=y       =  | PreparingRebalance 0 a-1*+ y-2+
         join c i=y       = b: FencedInstanceId y-2 | PreparingRebalance 0 a-1*+ y-3+
         wait 0           = a: 1 range of a-1 [a-1=m y-3=m]; c: 1 range of a-1 [] | CompletingRebalance 1 range a-1* y-3
         sync c           =  | CompletingRebalance 1 range a-1* y-3~
         join b id= i=y   = c: FencedInstanceId | PreparingRebalance 1 range a-1* y-4+",
    );
}

#[test]
fn a_static_member_that_does_not_join_stays_until_its_session_ends() {
    check(
        "join a i=x session=100000 rebalance=20000 = wrote 0 - | PreparingRebalance 0 x-1*+
         join b v=3 session=100000 rebalance=20000 =  | PreparingRebalance 0 b-2+ x-1*+
         wait 0           = a: 1 range of x-1 [b-2=m x-1=m]; b: 1 range of x-1 [] | CompletingRebalance 1 range b-2 x-1*
         sync b           =  | CompletingRebalance 1 range b-2~ x-1*
         sync a x-1->p b-2->q = wrote 1 range b-2=q x-1=p; a: has p; b: has q | Stable 1 range b-2 x-1*
         join b p=range:n rebalance=20000 =  | PreparingRebalance 1 range b-2+ x-1*
         wait 20000       = b: 2 range of b-2 [b-2=n x-1=m] | CompletingRebalance 2 range b-2* x-1
         sync b x-1->p b-2->q = wrote 2 range b-2=q x-1=p; b: has q | Stable 2 range b-2* x-1",
    );
}

#[test]
fn a_rebalance_to_which_no_static_member_comes_is_waited_for_again() {
    check(
        "join a i=x session=50000 rebalance=20000 = wrote 0 - | PreparingRebalance 0 x-1*+
         join b v=3 session=50000 rebalance=20000 =  | PreparingRebalance 0 b-2+ x-1*+
         wait 0           = a: 1 range of x-1 [b-2=m x-1=m]; b: 1 range of x-1 [] | CompletingRebalance 1 range b-2 x-1*
         leave b          = b: ok | PreparingRebalance 1 range x-1*
         wait 20000       =  | PreparingRebalance 1 range x-1*
         wait 29999       =  | PreparingRebalance 1 range x-1*
         wait 1           = wrote 2 - | Empty 2",
    );
}

/// How long a group waits is for its members to say, and a broker that waits for nothing again and again does nothing
/// else. A real broker does not look after its groups meanwhile, either.
#[test]
fn static_members_that_do_not_want_to_be_waited_for_are_waited_for_a_second_at_a_time() {
    check(
        "join a i=x session=50000 rebalance=20000 = wrote 0 - | PreparingRebalance 0 x-1*+
         join b i=y session=50000 rebalance=20000 =  | PreparingRebalance 0 x-1*+ y-2+
         wait 0           = a: 1 range of x-1 [x-1=m y-2=m]; b: 1 range of x-1 [] | CompletingRebalance 1 range x-1* y-2
         sync a x-1->p y-2->q = wrote 1 range x-1=p y-2=q; a: has p | Stable 1 range x-1* y-2
         sync b           = b: has q | Stable 1 range x-1* y-2
         join a id= i=x session=50000 rebalance=0 = wrote 1 range y-2=q x-3=p; a: 1 range of x-3 [y-2=m x-3=m] skip | Stable 1 range x-3* y-2
         join b id= i=y session=50000 rebalance=0 = wrote 1 range x-3=p y-4=q; b: 1 range of x-3 [] | Stable 1 range x-3* y-4
         leave - i=y      = -: ok | PreparingRebalance 1 range x-3*
         wait 49999       =  | PreparingRebalance 1 range x-3*
         wait 1           = wrote 2 - | Empty 2",
    );
}

#[test]
fn members_leave_together_and_by_instance() {
    check(
        "join a v=3       = wrote 0 - | PreparingRebalance 0 a-1*+
         join b i=y       =  | PreparingRebalance 0 a-1*+ y-2+
         join c v=3       =  | PreparingRebalance 0 a-1*+ c-3+ y-2+
         wait 0           = a: 1 range of a-1 [a-1=m c-3=m y-2=m]; b: 1 range of a-1 []; c: 1 range of a-1 [] | CompletingRebalance 1 range a-1* c-3 y-2
         sync b           =  | CompletingRebalance 1 range a-1* c-3 y-2~
         leave - i=y +c-3 +d-9 = -: ok ok UnknownMemberId; b: UnknownMemberId | PreparingRebalance 1 range a-1*
         leave - i=y      = -: UnknownMemberId | PreparingRebalance 1 range a-1*
         leave -          = -: UnknownMemberId | PreparingRebalance 1 range a-1*
         join d v=3       =  | PreparingRebalance 1 range a-1* d-4+
         leave a          = a: ok; d: 2 range of d-4 [d-4=m] | CompletingRebalance 2 range d-4*
         leave d          = wrote 3 -; d: ok | Empty 3",
    );
}

/// A member that leaves while it waits to join is told that it is none; the group goes on without it when its
/// first members were waited for anyway.
#[test]
fn who_leaves_while_it_waits_to_join_is_answered() {
    check_with(
        &[("group.initial.rebalance.delay.ms", "3000")],
        "join a v=3       = wrote 0 - | PreparingRebalance 0 a-1*+
         leave - id=a-1   = -: ok; a: UnknownMemberId | PreparingRebalance 0
         wait 3000        = wrote 1 - | Empty 1",
    );
}

/// A log that has not been compacted yet has a record of each generation. Members were once loaded with what they had
/// said in the oldest, and the offsets of topics that they had come to read since were theirs to lose.
#[test]
fn members_are_loaded_with_what_they_said_last() {
    check(
        "join a v=3 p=range:s,sticky:s session=10000 = wrote 0 - | PreparingRebalance 0 a-1*+
         wait 0           = a: 1 range of a-1 [a-1=s] | CompletingRebalance 1 range a-1*
         sync a a-1->p    = wrote 1 range a-1=p; a: has p | Stable 1 range a-1*
         join a p=sticky:t session=30000 = a: 2 sticky of a-1 [a-1=t] | CompletingRebalance 2 sticky a-1*
         sync a a-1->q    = wrote 2 sticky a-1=q; a: has q | Stable 2 sticky a-1*
         reload           =  | Stable 2 sticky a-1*
         describe -       = -: ok Stable consumer sticky a-1 of a/127.0.0.1 t:q | Stable 2 sticky a-1*
         wait 29999       =  | Stable 2 sticky a-1*
         heartbeat a      = a: ok | Stable 2 sticky a-1*
         join b v=3 p=range:s = b: InconsistentGroupProtocol | Stable 2 sticky a-1*
         join b v=3 p=sticky:s =  | PreparingRebalance 2 sticky a-1* b-2+",
    );
}

#[test]
fn an_unknown_group_is_answered_as_an_unknown_member() {
    check(
        "join a id=a-1    = a: UnknownMemberId | none
         sync a id=a-1    = a: UnknownMemberId | none
         heartbeat a      = a: UnknownMemberId | none
         leave a id=a-1   = a: UnknownMemberId | none
         describe         = GroupIdNotFound Group g not found.Dead | none
         describe - v=5   = -: ok Dead | none
         list             = | none",
    );
}

#[test]
fn an_id_that_was_given_out_is_not_for_a_static_member() {
    check(
        "join a           = wrote 0 -; a: MemberIdRequired a-1 | Empty 0 (a-1)
         join a i=x       = a: UnknownServerError | Empty 0 (a-1)",
    );
}

#[test]
fn asking_again_answers_the_request_before() {
    check(
        "join a v=3       = wrote 0 - | PreparingRebalance 0 a-1*+
         join b v=3       =  | PreparingRebalance 0 a-1*+ b-2+
         wait 0           = a: 1 range of a-1 [a-1=m b-2=m]; b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2
         sync b           =  | CompletingRebalance 1 range a-1* b-2~
         sync b           = b: RebalanceInProgress | CompletingRebalance 1 range a-1* b-2~
         join b p=range:n = b: RebalanceInProgress | PreparingRebalance 1 range a-1* b-2+
         join b p=range:n = b: RebalanceInProgress | PreparingRebalance 1 range a-1* b-2+",
    );
}

#[test]
fn groups_are_listed_and_described() {
    check(
        "join a v=3       = wrote 0 - | PreparingRebalance 0 a-1*+
         describe         = ok PreparingRebalance consumer  a-1 of a/127.0.0.1 : | PreparingRebalance 0 a-1*+
         list states=preparingREBALANCE types=CLASSIC = g classic PreparingRebalance consumer | PreparingRebalance 0 a-1*+
         wait 0           = a: 1 range of a-1 [a-1=m] | CompletingRebalance 1 range a-1*
         sync a a-1->all  = wrote 1 range a-1=all; a: has all | Stable 1 range a-1*
         describe         = ok Stable consumer range a-1 of a/127.0.0.1 m:all | Stable 1 range a-1*
         list states=empty,stable = g classic Stable consumer | Stable 1 range a-1*
         list states=empty =  | Stable 1 range a-1*
         list types=consumer,unheard =  | Stable 1 range a-1*
         leave a          = wrote 2 -; a: ok | Empty 2
         list             = g classic Empty consumer | Empty 2",
    );
}

#[test]
fn a_new_group_that_cannot_be_written_has_never_been() {
    check(
        "fail             =  | none
         join a           = a: NotCoordinator | none
         fail             =  | none
         join a v=3       = a: NotCoordinator | none
         wait 600000      =  | none",
    );
}

#[test]
fn an_assignment_that_cannot_be_written_makes_everybody_join_again() {
    check(
        "join a v=3       = wrote 0 - | PreparingRebalance 0 a-1*+
         join b v=3       =  | PreparingRebalance 0 a-1*+ b-2+
         wait 0           = a: 1 range of a-1 [a-1=m b-2=m]; b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* b-2
         sync b           =  | CompletingRebalance 1 range a-1* b-2~
         fail             =  | CompletingRebalance 1 range a-1* b-2~
         sync a a-1->x    = a: NotCoordinator; b: NotCoordinator | PreparingRebalance 1 range a-1* b-2
         join b           =  | PreparingRebalance 1 range a-1* b-2+
         join a           = a: 2 range of a-1 [a-1=m b-2=m]; b: 2 range of a-1 [] | CompletingRebalance 2 range a-1* b-2",
    );
}

#[test]
fn a_static_member_that_cannot_be_written_changes_nothing() {
    check(
        "join a i=x       = wrote 0 - | PreparingRebalance 0 x-1*+
         wait 0           = a: 1 range of x-1 [x-1=m] | CompletingRebalance 1 range x-1*
         sync a x-1->p    = wrote 1 range x-1=p; a: has p | Stable 1 range x-1*
         fail             =  | Stable 1 range x-1*
         join b i=x       = b: NotCoordinator | Stable 1 range x-1*
         heartbeat a i=x  = a: ok | Stable 1 range x-1*",
    );
}

#[test]
fn an_empty_generation_that_cannot_be_written_is_empty_all_the_same() {
    check(
        "join a v=3       = wrote 0 - | PreparingRebalance 0 a-1*+
         wait 0           = a: 1 range of a-1 [a-1=m] | CompletingRebalance 1 range a-1*
         fail             =  | CompletingRebalance 1 range a-1*
         leave a          = a: NotCoordinator | Empty 2",
    );
}

#[test]
fn a_group_is_loaded_in_its_last_written_generation_and_sessions_begin_anew() {
    check(
        "join a v=3       = wrote 0 - | PreparingRebalance 0 a-1*+
         join b i=y session=6000 =  | PreparingRebalance 0 a-1*+ y-2+
         wait 0           = a: 1 range of a-1 [a-1=m y-2=m]; b: 1 range of a-1 [] | CompletingRebalance 1 range a-1* y-2
         sync a a-1->p y-2->q = wrote 1 range a-1=p y-2=q; a: has p | Stable 1 range a-1* y-2
         join c v=3       =  | PreparingRebalance 1 range a-1* c-3+ y-2
         reload           =  | Stable 1 range a-1* y-2
         heartbeat a      = a: ok | Stable 1 range a-1* y-2
         sync b i=y       = b: has q | Stable 1 range a-1* y-2
         describe         = ok Stable consumer range a-1 of a/127.0.0.1 m:p y-2 of b/127.0.0.1 m:q | Stable 1 range a-1* y-2
         wait 6000        =  | PreparingRebalance 1 range a-1*
         leave a          = wrote 2 -; a: ok | Empty 2
         reload           =  | Empty 2
         list             = g classic Empty consumer | Empty 2",
    );
}

#[test]
fn a_group_that_is_loaded_with_too_many_members_loses_the_last_to_come() {
    let mut bench = Bench::new(&[("group.initial.rebalance.delay.ms", "0")]);
    bench.config = crate::Config::single_node(&[("group.max.size", "1")]).expect("a config");
    let record = GroupRecord::GroupMetadata {
        key: super::super::key("g"),
        value: Some(protocol::records::group::GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 7,
            protocol: Some("range".into()),
            leader: Some("a-1".into()),
            members: ["a-1", "b-2"]
                .map(|id| protocol::records::group::MemberMetadata {
                    member_id: id.into(),
                    session_timeout: 10_000,
                    ..Default::default()
                })
                .into(),
            ..Default::default()
        }),
    };
    bench.log.push(GroupCoordinator::encoded(&record).unwrap());
    bench.reload();
    assert_eq!(bench.group("g"), "PreparingRebalance 7 range a-1* b-2");
}

#[test]
fn what_is_asked_of_a_group_for_its_offsets() {
    use crate::coordinator::group::{Committer, Group, RetentionBase};
    let mut bench = Bench::new(&[("group.initial.rebalance.delay.ms", "0")]);
    let commit = |bench: &Bench, member_id: &str, epoch: i32, transactional: bool| {
        let Some(Group::Classic(group)) = bench.machine.groups.get("g") else {
            panic!("no group");
        };
        group.check_commit(&Committer {
            member_id,
            group_instance_id: None,
            epoch,
            transactional,
            version: 9,
            partitions: &|_| (),
        })
    };
    let subscription = b"\0\0\0\0\0\x01\0\x01t\0\0\0\0";
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId("g".into()))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type("consumer".into())
        .with_protocols(vec![
            JoinGroupRequestProtocol::default()
                .with_name("range".into())
                .with_metadata(Bytes::from_static(subscription)),
        ]);
    bench.ask(Request::Join(from("a", 3, join)));
    let member = long("a-1");
    assert_eq!(
        commit(&bench, "", -1, false),
        Err(ErrorCode::UnknownMemberId)
    );
    bench.wait(0);
    assert_eq!(
        commit(&bench, &member, 1, false),
        Err(ErrorCode::RebalanceInProgress)
    );
    assert_eq!(commit(&bench, &member, 1, true), Ok(()));
    let sync = SyncGroupRequest::default()
        .with_group_id(GroupId("g".into()))
        .with_member_id(member.clone().into())
        .with_generation_id(1);
    bench.ask(Request::Sync(from("a", 5, sync)));
    assert_eq!(commit(&bench, &member, 1, false), Ok(()));
    assert_eq!(
        commit(&bench, &member, 0, false),
        Err(ErrorCode::IllegalGeneration)
    );
    assert_eq!(
        commit(&bench, "b", 1, false),
        Err(ErrorCode::UnknownMemberId)
    );
    assert_eq!(
        commit(&bench, "", -1, false),
        Err(ErrorCode::UnknownMemberId)
    );
    assert_eq!(commit(&bench, "", -1, true), Ok(()));
    let Some(group) = bench.machine.groups.get("g") else {
        panic!("no group");
    };
    assert!(group.is_subscribed_to("t") && !group.is_subscribed_to("u"));
    assert_eq!(group.retention_base(), Some(RetentionBase::Commit));
    assert_eq!(group.check_delete(), Err(ErrorCode::NonEmptyGroup));
    assert_eq!(group.check_delete_offsets(), Ok(()));

    bench.now = 777;
    let leave = LeaveGroupRequest::default()
        .with_group_id(GroupId("g".into()))
        .with_members(vec![
            MemberIdentity::default().with_member_id(member.into()),
        ]);
    bench.ask(Request::Leave(from("a", 5, leave)));
    let Some(group) = bench.machine.groups.get("g") else {
        panic!("no group");
    };
    assert!(!group.is_subscribed_to("t"));
    assert_eq!(group.retention_base(), Some(RetentionBase::Empty(777)));
    assert_eq!(group.check_delete(), Ok(()));
    assert_eq!(commit(&bench, "", -1, false), Ok(()));
    assert_eq!(bench.machine.classic.rebalances_completed, 1);
}
