//! The rules, one script each.

use kafka_protocol::messages::{GroupId, OffsetCommitRequest};
use protocol::{messages::TxnOffsetCommitRequest, records::group::GroupRecord};

use super::{World, check, check_with, from};
use crate::coordinator::{
    Machine, Ticket,
    group::{GroupCoordinator, request::Request},
};

const MINUTE: [(&str, &str); 2] = [
    ("offsets.retention.minutes", "1"),
    ("offsets.retention.check.interval.ms", "1000"),
];

#[test]
fn whoever_commits_without_a_group_makes_one() {
    check(
        "groups                      =
         fetch g                     = none
         fetch g t-0 x-7             = t-0=-1 x-7=-1
         commit g t-0=5:meta t-1=6   = ok | g:t-0=5 g:t-1=6
         groups                      = g:Empty
         fetch g                     = t-0=5:meta t-1=6
         fetch g t-1 t-2 t-0 t-1     = t-1=6 t-2=-1 t-0=5:meta t-1=6
         commit g t-0=4              = ok | g:t-0=4
         fetch g t-0                 = t-0=4
         fetch h t-0                 = t-0=-1
         commit g t-0=-1             = ok | g:t-0=-1
         fetch g                     = t-0=-1 t-1=6",
    );
}

#[test]
fn of_two_commits_in_a_request_the_later_holds() {
    check(
        "commit g t-0=1:a t-0=2:b t-1=1 = ok | g:t-0=1 g:t-0=2 g:t-1=1
         fetch g                        = t-0=2:b t-1=1",
    );
}

#[test]
fn a_generation_needs_its_group() {
    check(
        "commit g t-0=1 gen=0 v=9      = GroupIdNotFound
         commit g t-0=1 gen=0 v=8      = IllegalGeneration
         commit g t-0=1 gen=0 as=x     = GroupIdNotFound
         txn 7 g t-0=1 gen=0           = IllegalGeneration
         groups                        =
         commit g t-0=1 gen=-5 as=x    = ok | g:t-0=1
         commit g t-0=1 gen=0 v=8      = UnknownMemberId
         commit g t-0=1 gen=0          = UnknownMemberId",
    );
}

#[test]
fn what_stands_beside_an_offset_is_bounded_in_units_of_utf16() {
    check(
        "commit g t-0=1:x*4096           = ok | g:t-0=1
         commit g t-0=2:x*4097 t-1=2     = t-0:OffsetMetadataTooLarge | g:t-1=2
         commit g t-0=2:é*4096           = ok | g:t-0=2
         commit g t-0=3:😀*2049          = t-0:OffsetMetadataTooLarge
         commit g t-0=3:😀*2048          = ok | g:t-0=3
         commit h t-0=3:x*4097           = t-0:OffsetMetadataTooLarge
         groups                          = g:Empty",
    );
}

/// A request may name a partition millions of times. It is refused as a whole, as everything is that no batch takes,
/// and a record was once built for each before.
#[test]
fn no_more_is_built_of_a_commit_than_can_be_appended() {
    for transactional in [false, true] {
        let mut world = World::new(&[]);
        world.records_bytes_max = 1000;
        let words = vec!["t-0=1:meta"; 10_000];
        let topics = world.commits(&words);
        let request = if transactional {
            let body = TxnOffsetCommitRequest {
                group_id: "g".into(),
                generation_id_or_member_epoch: -1,
                topics: world.commits_in_transaction(&words),
                ..TxnOffsetCommitRequest::default()
            };
            Request::CommitInTransaction(from(5, body))
        } else {
            let body = OffsetCommitRequest::default()
                .with_group_id(GroupId("g".into()))
                .with_generation_id_or_member_epoch(-1)
                .with_topics(topics);
            Request::Commit(from(9, body))
        };
        let effects = world.with_env(|machine, env| machine.handle(Ticket::new(0), request, env));
        let size = |record: &GroupRecord| {
            let (key, value) = GroupCoordinator::encoded(record).expect("a record");
            key.len() + value.map_or(0, |value| value.len())
        };
        let bytes: usize = effects.append.iter().map(size).sum();
        assert!((1001..2000).contains(&bytes), "{bytes} bytes");
    }
}

#[test]
fn members_commit_in_their_generation_and_nobody_else_does() {
    check(
        "join g t                        = ok
         commit g t-0=1 as=m gen=0       = ok | g:t-0=1
         commit g t-0=2 as=m gen=1       = IllegalGeneration
         commit g t-0=2 as=stranger gen=1 = UnknownMemberId
         commit g t-0=2                  = UnknownMemberId
         fetch g                         = t-0=1
         leave g                         = ok
         commit g t-0=3                  = ok | g:t-0=3",
    );
}

/// Apache Kafka writes a tombstone for each; nobody sees the difference but the log.
#[test]
fn what_is_deleted_twice_in_a_request_is_written_down_once() {
    check(
        "commit g t-0=1 t-1=1           = ok | g:t-0=1 g:t-1=1
         delete-offsets g t-0 t-1 t-0 t-2 t-2 = ok | g:t-0=gone g:t-1=gone
         fetch g                        = none",
    );
}

#[test]
fn offsets_of_what_members_read_cannot_be_deleted() {
    check(
        "delete-offsets g t-0            = GroupIdNotFound
         join g t                        = ok
         commit g t-0=1 u-0=2 as=m gen=0 = ok | g:t-0=1 g:u-0=2
         delete-offsets g t-0 u-0        = t-0:GroupSubscribedToTopic | g:u-0=gone
         delete-offsets g u-0 x-0        = ok
         delete g                        = g:NonEmptyGroup
         leave g                         = ok
         delete-offsets g t-0            = ok | g:t-0=gone
         fetch g                         = none
         groups                          = g:Empty",
    );
}

#[test]
fn a_group_is_deleted_with_all_that_it_has_committed() {
    check(
        "commit g t-0=1 u-0=2 = ok | g:t-0=1 g:u-0=2
         txn 7 g t-2=3        = ok | g:t-2=3
         commit h t-0=1       = ok | h:t-0=1
         delete g x h         = x:GroupIdNotFound | g:t-0=gone g:t-2=gone g:u-0=gone g=gone h:t-0=gone h=gone
         groups               =
         end 7 commit         =
         fetch g              = none
         delete g             = g:GroupIdNotFound",
    );
}

#[test]
fn what_could_not_be_written_has_changed_nothing() {
    check(
        "commit g t-0=1  = ok | g:t-0=1
         append-fails    =
         commit g t-0=2  = NotCoordinator
         fetch g         = t-0=1
         append-fails    =
         delete g        = NotCoordinator
         fetch g         = t-0=1
         append-fails    =
         commit h t-0=2  = NotCoordinator
         groups          = g:Empty",
    );
}

#[test]
fn an_offset_in_a_transaction_is_seen_when_it_has_been_committed() {
    check(
        "commit g t-0=1       = ok | g:t-0=1
         txn 7 g t-0=5 t-1=6  = ok | g:t-0=5 g:t-1=6
         fetch g              = t-0=1
         fetch g stable       = t-0=UnstableOffsetCommit
         fetch g t-0 t-1 t-2 stable = t-0=UnstableOffsetCommit t-1=UnstableOffsetCommit t-2=-1
         reload               =
         fetch g t-0 t-1 t-2 stable = t-0=UnstableOffsetCommit t-1=UnstableOffsetCommit t-2=-1
         end 7 commit         =
         fetch g stable       = t-0=5 t-1=6
         txn 7 g t-0=9        = ok | g:t-0=9
         end 7 abort          =
         fetch g stable       = t-0=5 t-1=6",
    );
}

#[test]
fn a_transaction_may_make_a_group_and_is_its_only_trace() {
    check(
        "txn 7 g t-0=5       = ok | g:t-0=5
         groups              = g:Empty
         fetch g             = none
         end 7 abort         =
         fetch g t-0 stable  = t-0=-1",
    );
}

#[test]
fn of_two_commits_the_later_in_the_log_holds_whatever_ends_when() {
    check(
        "txn 7 g t-0=5   = ok | g:t-0=5
         txn 8 g t-0=6   = ok | g:t-0=6
         txn 9 g t-1=5   = ok | g:t-1=5
         commit g t-1=7  = ok | g:t-1=7
         end 8 commit    =
         end 7 commit    =
         end 9 commit    =
         fetch g stable  = t-0=6 t-1=7",
    );
}

#[test]
fn what_is_deleted_does_not_come_back_with_a_transaction() {
    check(
        "txn 7 g t-0=5 t-1=6   = ok | g:t-0=5 g:t-1=6
         delete-offsets g t-0  = ok | g:t-0=gone
         fetch g t-0 t-1 stable = t-0=-1 t-1=UnstableOffsetCommit
         end 7 commit          =
         fetch g               = t-1=6",
    );
}

/// As seen at a real broker with the same two settings.
#[test]
fn offsets_of_a_simple_group_go_by_the_time_of_each_commit() {
    check_with(
        &MINUTE,
        "commit g t-0=1 = ok | g:t-0=1
         wait 40000     =
         commit g t-1=2 = ok | g:t-1=2
         wait 19999     =
         wait 1         = | g:t-0=gone
         wait 39000     =
         wait 1000      = | g:t-1=gone g=gone
         groups         =",
    );
}

/// A real broker took the late commit away with the others.
#[test]
fn offsets_of_a_group_go_by_the_time_at_which_it_became_empty() {
    check_with(
        &MINUTE,
        "join g t                  = ok
         commit g t-0=1 as=m gen=0 = ok | g:t-0=1
         wait 600000               =
         leave g                   = ok
         wait 40000                =
         commit g t-1=5            = ok | g:t-1=5
         wait 19000                =
         wait 2000                 = | g:t-0=gone g:t-1=gone g=gone
         groups                    =",
    );
}

#[test]
fn what_members_read_stays_and_what_they_read_no_longer_goes() {
    check_with(
        &MINUTE,
        "join g t                        = ok
         commit g t-0=1 u-0=2 as=m gen=0 = ok | g:t-0=1 g:u-0=2
         wait 61000                      = | g:u-0=gone
         wait 600000                     =
         fetch g                         = t-0=1",
    );
}

#[test]
fn an_offset_with_a_retention_of_its_own_goes_by_that() {
    check_with(
        &MINUTE,
        "commit g t-0=1 keep=5000 v=4   = ok | g:t-0=1
         commit g t-1=1 keep=100000 v=4 = ok | g:t-1=1
         commit h t-0=1 keep=0 v=4      = ok | h:t-0=1
         wait 1000                      = | h:t-0=gone h=gone
         wait 3000                      =
         wait 2000                      = | g:t-0=gone
         wait 90000                     =
         wait 5000                      = | g:t-1=gone g=gone",
    );
}

#[test]
fn what_a_transaction_is_about_to_change_does_not_expire() {
    check_with(
        &MINUTE,
        "commit g t-0=1 t-1=1 = ok | g:t-0=1 g:t-1=1
         txn 7 g t-0=5        = ok | g:t-0=5
         wait 61000           = | g:t-1=gone
         wait 100000          =
         end 7 abort          =
         wait 1000            = | g:t-0=gone g=gone",
    );
}

#[test]
fn a_group_is_looked_at_again_when_its_tombstones_could_not_be_written() {
    check_with(
        &MINUTE,
        "commit g t-0=1 = ok | g:t-0=1
         wait 59000     =
         append-fails   =
         wait 1000      =
         fetch g        = t-0=1
         wait 1000      = | g:t-0=gone g=gone",
    );
}

#[test]
fn offsets_of_a_topic_go_with_it() {
    check(
        "commit g t-0=1 u-0=2 = ok | g:t-0=1 g:u-0=2
         txn 7 g u-0=3        = ok | g:u-0=3
         topic x 1            =
         topic u 0            = | g:u-0=gone
         end 7 commit         =
         fetch g              = t-0=1
         topic t 0            = | g:t-0=gone
         groups               = g:Empty",
    );
}

#[test]
fn offsets_of_a_deleted_topic_are_dropped_again_when_that_could_not_be_written() {
    check(
        "commit g u-0=2 = ok | g:u-0=2
         append-fails   =
         topic u 0      =
         wait 999       =
         wait 1         = | g:u-0=gone",
    );
}

/// Deleted and created again while this partition was led elsewhere, or nobody looked.
#[test]
fn offsets_of_another_topic_of_the_same_name_are_not_shown_and_go_when_loaded() {
    check(
        "commit g t-0=1  = ok | g:t-0=1
         commit h u-0=1  = ok | h:u-0=1
         topic u 0       = | h:u-0=gone
         topic u 1       =
         commit h u-0=2  = ok | h:u-0=2
         fetch h         = u-0=2
         reload          =
         fetch h         = u-0=2",
    );
}

/// More than fits a batch goes in several.
#[test]
fn what_goes_at_once_is_bounded() {
    let mut script = String::new();
    // A name of 255 bytes fills a batch with 900 tombstones.
    let id = "i".repeat(255);
    for group in 0..1000 {
        script += &format!("commit {id}{group} t-0=1 = ok | {id}{group}:t-0=1\n");
    }
    let mut settings = MINUTE.to_vec();
    settings.push(("group.initial.rebalance.delay.ms", "0"));
    let mut world = World::new(&settings);
    for line in script.lines() {
        world.command(line.split_once(" = ").expect("a command").0);
    }
    world.written.clear();
    world.wait(60_000);
    let first = world.written.split_whitespace().count();
    assert!((500..2000).contains(&first), "{first}");
    // Who has been looked at is not looked at again for the rest.
    assert_eq!(world.machine.offsets.expiring.len(), 1000 - first / 2);
    world.wait(1_000);
    assert_eq!(world.written.split_whitespace().count(), 2000);
    assert_eq!(world.command("groups"), "");
}
