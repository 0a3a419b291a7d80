//! The loop around a machine that can be held while it is loaded, on a broker in this process.

use std::{
    convert::Infallible,
    sync::mpsc::{Receiver, Sender, channel},
};

use bytes::Bytes;
use protocol::{
    batch::Builder,
    error::DecodeError,
    records::{
        Encoded,
        control::ControlRecord,
        group::{GroupMetadataKey, GroupRecord},
    },
    schema::EncodeError,
};
use replication::controller::topics::NewTopic;
use tempfile::TempDir;

use super::*;
use crate::broker::{Broker, Running};

const TOPIC: &str = "counted";

/// Of a counted record: that of a group without a name.
const KEY: &str = "\0\x02\0\0";

/// Counts records. The first is replayed when somebody says so.
struct Counter {
    go: Option<Receiver<()>>,
    count: usize,
}

#[derive(Debug)]
enum Ask {
    /// How many records there were before this.
    Count,
    Fail,
}

impl Machine for Counter {
    type Request = Ask;
    type Response = usize;
    type Record = ();
    type Task = Infallible;

    // Any record that has a form.
    fn encode((): &(), out: &mut Encoded) -> Result<(), EncodeError> {
        let key = GroupMetadataKey::default();
        GroupRecord::GroupMetadata { key, value: None }.encode(0, out)
    }

    fn decode(key: Bytes, _: Option<Bytes>) -> Result<Option<()>, DecodeError> {
        if key == KEY {
            return Ok(Some(()));
        }
        ControlRecord::decode(Bytes::new(), key).map(|_| None)
    }

    fn handle(&mut self, ticket: Ticket, ask: Ask, _: &mut Env<'_>) -> Effects<Self> {
        match ask {
            Ask::Count => Effects::append(vec![()], ticket, self.count),
            Ask::Fail => panic!("a fault of the machine, as the test asks for"),
        }
    }

    fn replay(&mut self, (): (), _: Origin) {
        if let Some(go) = self.go.take() {
            // Whoever could say so may have failed.
            let _ = go.recv();
        }
        self.count += 1;
    }

    fn end_transaction(&mut self, _: Producer, _: bool) {}

    fn loaded(&mut self, _: &mut Env<'_>) -> Effects<Self> {
        Effects::default()
    }

    fn image_changed(&mut self, _: &mut Env<'_>) {}

    fn next_deadline(&self) -> Option<i64> {
        None
    }

    fn tick(&mut self, _: &mut Env<'_>) -> Option<Effects<Self>> {
        None
    }

    fn append_failed(
        &mut self,
        _: Vec<()>,
        _: ErrorCode,
        _: &mut Env<'_>,
    ) -> Vec<(Ticket, Answer<Self>)> {
        Vec::new()
    }
}

/// A broker with a topic of one partition, in which these keys are written.
struct World {
    running: Running,
    _dir: TempDir,
}

impl World {
    async fn new(keys: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log_dir = dir.path().display().to_string();
        let config = Config::single_node(&[
            ("log.dirs", &*log_dir),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("sordini.metrics.listener", ""),
        ]);
        let config = config.expect("a configuration");
        let running = crate::start(config).await.expect("a broker");
        let broker = running.broker();
        let topic = NewTopic {
            name: TOPIC.to_owned(),
            partition_count: 1,
            replication_factor: 1,
            assignments: Vec::new(),
            configs: Vec::new(),
        };
        let created = broker.controller().create_topics(vec![topic], false).await;
        assert!(created.expect("a controller").iter().all(Result::is_ok));
        broker.partitions().applied(broker.image().offset).await;
        let partition = broker.partition(TOPIC, 0).expect("a partition");
        for key in keys {
            let mut batch = Builder::new();
            batch.push(0, Some(key.as_bytes()), None, &[]);
            let batch = batch.build().expect("a small batch");
            let origin = producers::Origin::Coordinator {
                transaction_version: 0,
            };
            let epoch = partition.leadership().leader_epoch;
            partition
                .append_own(&batch, epoch, origin, 0)
                .expect("an append");
        }
        Self { running, _dir: dir }
    }

    fn broker(&self) -> &Arc<Broker> {
        self.running.broker()
    }

    /// A runtime that has begun to load, and what lets its machine go on.
    fn runtime(&self) -> (Arc<Runtime<Counter>>, Sender<()>) {
        let broker = Arc::clone(self.broker());
        let (go, held) = channel();
        let held = Mutex::new(Some(held));
        let host = Host {
            node_id: broker.node_id(),
            partitions: Arc::clone(broker.partitions()),
            config: Arc::new(ArcSwap::new(Arc::clone(&broker.config()))),
            image: Box::new(move || broker.image()),
        };
        let runtime = Arc::new(Runtime::new(
            TOPIC,
            host,
            move || Counter {
                go: held.lock().unwrap_or_else(PoisonError::into_inner).take(),
                count: 0,
            },
            |job: Job<Counter>| match job.task {},
        ));
        runtime.follow(&self.broker().image());
        (runtime, go)
    }
}

/// Asks until the partition is loaded, or known not to be.
async fn settled(runtime: &Arc<Runtime<Counter>>) -> Answer<Counter> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match runtime.ask("any", Ask::Count).await {
            Err(ErrorCode::CoordinatorLoadInProgress) => {
                assert!(Instant::now() < deadline, "still loading");
                tokio::task::yield_now().await;
            }
            settled => return settled,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_sent_away_while_their_partition_is_loaded() {
    let world = World::new(&[KEY, KEY, KEY]).await;
    let (runtime, go) = world.runtime();
    let loading = States {
        loading: 1,
        ..States::default()
    };
    for _ in 0..3 {
        let answer = runtime.ask("any", Ask::Count).await;
        assert_eq!(answer, Err(ErrorCode::CoordinatorLoadInProgress));
        assert_eq!(runtime.each(|_| ()), loading);
    }
    go.send(()).expect("it waits for this");
    assert_eq!(settled(&runtime).await, Ok(3));
    // What was appended meanwhile has been replayed.
    assert_eq!(runtime.ask("any", Ask::Count).await, Ok(4));
    let mut counts = Vec::new();
    let states = runtime.each(|machine| counts.push(machine.count));
    assert_eq!((states.active, &counts[..]), (1, &[5][..]));
    runtime.close();
    assert_eq!(
        runtime.ask("any", Ask::Count).await,
        Err(ErrorCode::NotCoordinator)
    );
    world.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_fails_is_made_anew_from_its_log() {
    let world = World::new(&[KEY]).await;
    let (runtime, go) = world.runtime();
    go.send(()).expect("it waits for this");
    assert_eq!(settled(&runtime).await, Ok(1));
    let failed = runtime.ask("any", Ask::Fail).await;
    assert_eq!(failed, Err(ErrorCode::CoordinatorLoadInProgress));
    assert_eq!(settled(&runtime).await, Ok(2));
    world.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_understood_is_not_served() {
    let world = World::new(&[KEY, "what is this"]).await;
    let (runtime, go) = world.runtime();
    go.send(()).expect("it waits for this");
    assert_eq!(settled(&runtime).await, Err(ErrorCode::NotCoordinator));
    assert_eq!(runtime.each(|_| ()).failed, 1);
    world.running.stop().await;
}

/// Seen at a real broker with 50 partitions: which partition's leader FindCoordinator names.
#[test]
fn keys_are_spread_as_javas_hash_spreads_them() {
    assert_eq!(partition_of("", 50), 0);
    assert_eq!(partition_of("a", 50), 47);
    // Its hash is the smallest integer there is, which has no absolute value.
    assert_eq!(partition_of("polygenelubricants", 50), 0);
    assert_eq!(partition_of("grüße-😀", 7), partition_of("grüße-😀", 7));
}
