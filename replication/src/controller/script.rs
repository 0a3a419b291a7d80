//! Tests of the pure decisions, as scripts: one command a line, and after `=>` what came of it.
//!
//! ```text
//! broker 1 [RACK | dirs=ID,ID]             a broker registers and may serve
//! restart 1 [dirs=ID,ID]                   the same after it stopped in good order
//! place BROKER NAME-INDEX DIR              a broker says where its replica is
//! online BROKER ID,ID                      the directories a broker has left
//! cordon BROKER ID,ID|none                 the directories that take no new partitions
//! create NAME COUNT FACTOR [KEY=VALUE]     also: create NAME 0:1,2 1:2,1 (replicas of each partition)
//! delete NAME | grow NAME COUNT [2,1 ...]  (replicas of each new partition)
//! set|append|subtract|unset RESOURCE KEY[=VALUE], replace RESOURCE [KEY=VALUE]
//! fence|unfence|stop|kill|unregister ID
//! elect preferred|unclean NAME-INDEX
//! feature NAME LEVEL upgrade|safe|unsafe
//! ids BROKER
//! show NAME-INDEX | show RESOURCE
//! ```
//!
//! A resource is `topic:NAME`, `broker:ID` or `broker:`. What is decided is replayed before the next
//! line; a refusal shows as its reason and message.

use std::collections::BTreeMap;

use protocol::records::metadata::{FeatureLevelRecord, MetadataRecord};
use uuid::Uuid;

use super::{
    Decision, Scene,
    brokers::{self, Registration, SupportedFeature},
    config::{self, ConfigRules, Operation, OperationKind},
    dice::Dice,
    directories::{self, Place},
    features::{self, Direction, Supported, Update},
    leaders::{self, Election},
    producer_ids,
    topics::{self, Defaults, MorePartitions, NewTopic, TopicRef},
};
use crate::{
    cluster::{ClusterImage, Resource, ResourceKind},
    error::{Reason, Refusal},
};

const CLUSTER: &str = "cluster";

#[track_caller]
pub(super) fn check(script: &str) {
    let mut cluster = Cluster::new();
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (command, want) = match line.split_once("=>") {
            Some((command, want)) => (command.trim(), Some(want.trim())),
            None => (line, None),
        };
        let got = cluster.run(command);
        match want {
            Some(want) => assert_eq!(got, want, "after `{command}`"),
            None => assert_eq!(got, "ok", "after `{command}`"),
        }
    }
    // Whatever the script did, a checkpoint of it says the same.
    let mut again = ClusterImage::empty(CLUSTER);
    for record in cluster.image.records() {
        again.replay(0, &record).unwrap();
    }
    assert_eq!(again.records(), cluster.image.records());
}

struct Cluster {
    image: ClusterImage,
    dice: Dice,
    incarnations: u128,
}

impl Cluster {
    fn new() -> Cluster {
        let mut image = ClusterImage::empty(CLUSTER);
        for (name, feature_level) in [
            ("metadata.version", 33),
            ("eligible.leader.replicas.version", 1),
        ] {
            let name = name.to_owned();
            let record = FeatureLevelRecord {
                name,
                feature_level,
            };
            image
                .replay(image.offset + 1, &MetadataRecord::FeatureLevel(record))
                .unwrap();
        }
        Cluster {
            image,
            dice: Dice::new(7),
            incarnations: 0,
        }
    }

    fn run(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["broker", id, ref more @ ..] => {
                let registration = self.registration(number(id), -1, more.first().copied());
                self.decide(|scene| shown(brokers::register(scene, &registration), |_| ok()))
            }
            ["kill", id] => {
                let id = number(id);
                self.decide(|scene| shown(brokers::fence(scene, id, epoch(scene, id)), |()| ok()));
                let registration = self.registration(id, -1, None);
                self.decide(|scene| shown(brokers::register(scene, &registration), |_| ok()))
            }
            ["restart", id, ref more @ ..] => {
                let id = number(id);
                let epoch = self.image.brokers[&id].epoch;
                let registration = self.registration(id, epoch, more.first().copied());
                self.decide(|scene| shown(brokers::register(scene, &registration), |_| ok()))
            }
            ["crash", id] => {
                // Back before anyone noticed.
                let registration = self.registration(number(id), -1, None);
                self.decide(|scene| shown(brokers::register(scene, &registration), |_| ok()))
            }
            ["place", id, target, directory] => {
                let (topic, index) = partition(target);
                let place = Place {
                    topic_id: self.image.topic(&topic).unwrap().id,
                    index,
                    directory: Uuid::from_u128(number(directory)),
                };
                self.broker(id, |scene, id, epoch| {
                    directories::assign(scene, id, epoch, &[place])
                })
            }
            ["online", id, ids] => self.broker(id, |scene, id, epoch| {
                directories::fail(scene, id, epoch, &uuids(ids))
            }),
            ["cordon", id, ids] => self.broker(id, |scene, id, epoch| {
                let cordoned = if ids == "none" {
                    Vec::new()
                } else {
                    uuids(ids)
                };
                directories::cordon(scene, id, epoch, &cordoned)
            }),
            ["fence", id] => self.broker(id, brokers::fence),
            ["unfence", id] => self.broker(id, brokers::unfence),
            ["stop", id] => self.broker(id, brokers::begin_controlled_shutdown),
            ["unregister", id] => {
                let id = number(id);
                self.decide(|scene| shown(brokers::unregister(scene, id), |()| ok()))
            }
            ["create", name, ref rest @ ..] => self.create(name, rest),
            ["delete", name] => {
                let topics = [TopicRef::Name(name.to_owned())];
                self.decide(|scene| first(topics::delete(scene.image, &topics), |_| ok()))
            }
            ["grow", topic, count, ref assignments @ ..] => {
                let more = MorePartitions {
                    topic: topic.to_owned(),
                    count: number(count),
                    assignments: (!assignments.is_empty())
                        .then(|| assignments.iter().map(|ids| list(ids)).collect()),
                };
                self.decide(|scene| {
                    first(topics::create_partitions(scene, &[more], false), |()| ok())
                })
            }
            [verb @ ("set" | "append" | "subtract" | "unset"), on, config] => {
                let (name, value) = match config.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (config, None),
                };
                let kind = match verb {
                    "set" => OperationKind::Set,
                    "append" => OperationKind::Append,
                    "subtract" => OperationKind::Subtract,
                    _ => OperationKind::Delete,
                };
                let name = name.to_owned();
                let changes = [(resource(on), vec![Operation { name, kind, value }])];
                self.decide(|scene| {
                    first(
                        config::alter(scene.image, scene.rules, &changes, false),
                        |()| ok(),
                    )
                })
            }
            ["replace", on, ref configs @ ..] => {
                let changes = [(resource(on), pairs(configs))];
                self.decide(|scene| {
                    first(
                        config::replace(scene.image, scene.rules, &changes, false),
                        |()| ok(),
                    )
                })
            }
            ["elect", kind, target] => {
                let (topic, index) = partition(target);
                let election = match kind {
                    "preferred" => Election::Preferred,
                    _ => Election::Unclean,
                };
                let targets = Some(vec![(topic, vec![index])]);
                self.decide(|scene| {
                    let decided = leaders::elect(scene, election, &targets);
                    let elected = decided.answer[0].partitions[0].1.clone();
                    (decided.records, elected.map_or_else(refused, |()| ok()))
                })
            }
            ["feature", name, level, direction] => {
                let update = Update {
                    feature: name.to_owned(),
                    level: number(level),
                    direction: match direction {
                        "upgrade" => Direction::Upgrade,
                        "safe" => Direction::SafeDowngrade,
                        _ => Direction::UnsafeDowngrade,
                    },
                };
                let supported = supported();
                self.decide(|scene| {
                    let updates = [update];
                    shown(
                        features::update(scene.image, &supported, 1, &updates, false),
                        |()| ok(),
                    )
                })
            }
            ["ids", broker] => {
                let id = number(broker);
                self.decide(|scene| {
                    let epoch = epoch(scene, id);
                    let allocated = producer_ids::allocate(scene.image, id, epoch);
                    shown(allocated, |block| {
                        format!("{}..{}", block.first, block.first + block.count)
                    })
                })
            }
            ["show", what] if what.contains(':') => self.show_configs(&resource(what)),
            ["show", what] => self.show_partition(what),
            _ => panic!("unknown command: {command}"),
        }
    }

    fn create(&mut self, name: &str, rest: &[&str]) -> String {
        let mut topic = NewTopic {
            name: name.trim_matches('"').to_owned(),
            partition_count: -1,
            replication_factor: -1,
            ..NewTopic::default()
        };
        match rest {
            [assignment, ..] if assignment.contains(':') => {
                topic.assignments = rest
                    .iter()
                    .map(|assignment| {
                        let (index, ids) = assignment.split_once(':').unwrap();
                        (number(index), list(ids))
                    })
                    .collect();
            }
            [count, factor, configs @ ..] => {
                topic.partition_count = number(count);
                topic.replication_factor = number(factor);
                topic.configs = pairs(configs);
            }
            _ => {}
        }
        let defaults = Defaults {
            partition_count: 1,
            replication_factor: 1,
        };
        self.decide(|scene| {
            first(
                topics::create(scene, defaults, &[topic], false),
                |created| format!("{}x{}", created.partition_count, created.replication_factor),
            )
        })
    }

    fn broker(
        &mut self,
        id: &str,
        change: impl FnOnce(&Scene<'_>, i32, i64) -> Decision<Result<(), Refusal>>,
    ) -> String {
        let id = number(id);
        self.decide(|scene| shown(change(scene, id, epoch(scene, id)), |()| ok()))
    }

    /// `more` is the broker's rack, or its directories as `dirs=1,2`.
    fn registration(&mut self, id: i32, previous_epoch: i64, more: Option<&str>) -> Registration {
        self.incarnations += 1;
        let dirs = more.and_then(|more| more.strip_prefix("dirs="));
        let rack = more.filter(|_| dirs.is_none());
        let log_dirs = match dirs {
            Some(dirs) => uuids(dirs),
            None => vec![Uuid::from_u128(1000 + u128::try_from(id).unwrap())],
        };
        Registration {
            broker_id: id,
            cluster_id: CLUSTER.to_owned(),
            incarnation_id: Uuid::from_u128(self.incarnations),
            endpoints: Vec::new(),
            features: supported()
                .into_iter()
                .map(|(name, (min, max))| SupportedFeature { name, min, max })
                .collect(),
            rack: rack.map(str::to_owned),
            log_dirs,
            previous_epoch,
            ready: true,
        }
    }

    fn decide(
        &mut self,
        decide: impl FnOnce(&mut Scene<'_>) -> (Vec<MetadataRecord>, String),
    ) -> String {
        let mut scene = Scene {
            image: &self.image,
            rules: &Rules,
            node_id: 1,
            dice: &mut self.dice,
        };
        let (records, answer) = decide(&mut scene);
        for record in records {
            let offset = self.image.offset + 1;
            self.image.replay(offset, &record).unwrap();
        }
        answer
    }

    fn show_partition(&self, what: &str) -> String {
        let (topic, index) = partition(what);
        let Some(partition) = self.image.partition(&topic, index) else {
            return "none".to_owned();
        };
        let mut shown = format!(
            "leader {} epoch {} isr {:?}",
            partition.leader, partition.leader_epoch, partition.isr
        );
        if !partition.eligible_leader_replicas.is_empty() {
            shown += &format!(" eligible {:?}", partition.eligible_leader_replicas);
        }
        if !partition.last_known_eligible_leader_replicas.is_empty() {
            shown += &format!(" last {:?}", partition.last_known_eligible_leader_replicas);
        }
        if partition.leader_recovering {
            shown += " recovering";
        }
        // Only where a test has given brokers directories to choose from.
        if self
            .image
            .brokers
            .values()
            .any(|broker| broker.log_dirs[0] < Uuid::from_u128(1000))
        {
            let places: Vec<u128> = partition.directories.iter().map(Uuid::as_u128).collect();
            shown += &format!(" in {places:?}");
        }
        shown
    }

    fn show_configs(&self, resource: &Resource) -> String {
        let configs = self.image.configs_of(resource).into_iter();
        let pairs = configs.flat_map(|configs| configs.iter());
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join(" ")
    }
}

/// Knows a list, a number that must be one, and takes anything else.
struct Rules;

impl ConfigRules for Rules {
    fn validate(
        &self,
        _: &Resource,
        proposed: &BTreeMap<String, String>,
        _: &BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        match proposed.get("retention.ms") {
            Some(value) if value.parse::<i64>().is_err() => {
                Err(Refusal::new(Reason::InvalidConfig, "not a number"))
            }
            _ => Ok(()),
        }
    }

    fn is_list(&self, _: ResourceKind, name: &str) -> bool {
        name == "cleanup.policy"
    }

    fn default_value(&self, _: ResourceKind, name: &str) -> Option<String> {
        match name {
            "cleanup.policy" => Some("delete".to_owned()),
            "min.insync.replicas" => Some("1".to_owned()),
            _ => None,
        }
    }
}

fn supported() -> Supported {
    [
        ("metadata.version", (7, 33)),
        ("eligible.leader.replicas.version", (0, 1)),
        ("transaction.version", (0, 2)),
    ]
    .map(|(name, range)| (name.to_owned(), range))
    .into()
}

fn shown<T>(
    decided: Decision<Result<T, Refusal>>,
    show: impl FnOnce(T) -> String,
) -> (Vec<MetadataRecord>, String) {
    (decided.records, decided.answer.map_or_else(refused, show))
}

fn first<T>(
    decided: Decision<Vec<Result<T, Refusal>>>,
    show: impl FnOnce(T) -> String,
) -> (Vec<MetadataRecord>, String) {
    let mut answers = decided.answer.into_iter();
    let answer = answers.next().expect("one was asked");
    (decided.records, answer.map_or_else(refused, show))
}

fn ok() -> String {
    "ok".to_owned()
}

fn refused(refusal: Refusal) -> String {
    refusal.to_string()
}

fn epoch(scene: &Scene<'_>, id: i32) -> i64 {
    scene
        .image
        .brokers
        .get(&id)
        .map_or(-1, |broker| broker.epoch)
}

fn resource(text: &str) -> Resource {
    let (kind, name) = text.split_once(':').expect("kind:name");
    let kind = match kind {
        "topic" => ResourceKind::Topic,
        "broker" => ResourceKind::Broker,
        _ => ResourceKind::Group,
    };
    let name = name.to_owned();
    Resource { kind, name }
}

fn pairs(configs: &[&str]) -> Vec<(String, Option<String>)> {
    configs
        .iter()
        .map(|config| match config.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => ((*config).to_owned(), None),
        })
        .collect()
}

fn partition(text: &str) -> (String, i32) {
    let (topic, index) = text.rsplit_once('-').expect("topic-index");
    (topic.to_owned(), number(index))
}

fn list(text: &str) -> Vec<i32> {
    text.split(',')
        .filter(|id| !id.is_empty())
        .map(number)
        .collect()
}

fn uuids(text: &str) -> Vec<Uuid> {
    let ids = text.split(',').map(number);
    ids.map(Uuid::from_u128).collect()
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("not a number: {text}"))
}
