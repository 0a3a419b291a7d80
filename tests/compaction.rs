//! What compaction promises to who reads and writes a compacted topic, over the wire.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use common::{Client, TestBroker, batch, topic_name};
use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    IncrementalAlterConfigsRequest,
    alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};
use protocol::{
    batch::{Batch, Builder},
    compression::Compression,
    error::ErrorCode,
};

/// A segment has this many batches: [`Producer`]'s are a millisecond apart.
const SEGMENT: usize = 40;
const COMPACTED: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "40"),
    ("min.cleanable.dirty.ratio", "0.0"),
    ("delete.retention.ms", "86400000"),
];
/// The cleaner looks all the time.
const EAGER: [(&str, &str); 1] = [("log.cleaner.backoff.ms", "10")];
const LIMIT: Duration = Duration::from_secs(300);

type Content = BTreeMap<String, String>;

/// Produces, and knows what a reader must find.
struct Producer {
    random: u64,
    time: i64,
    /// Key and value of all that was sent, by offset.
    sent: Vec<(String, Option<String>)>,
    content: Content,
}

impl Producer {
    fn new(seed: u64) -> Producer {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a time after 1970");
        Producer {
            random: seed,
            time: i64::try_from(now.as_millis()).expect("a time of ours") - 3_600_000,
            sent: Vec::new(),
            content: Content::new(),
        }
    }

    /// A number below `limit` (a linear congruential generator's).
    fn below(&mut self, limit: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    /// Batches of one to five records of `keys` keys, one in five a deletion.
    fn random(&mut self, client: &mut Client, topic: &str, batches: usize, keys: u64) {
        for _ in 0..batches {
            let count = 1 + self.below(5);
            let records: Vec<_> = (0..count)
                .map(|_| {
                    let key = format!("key-{}", self.below(keys));
                    let value =
                        (self.below(5) != 0).then(|| format!("value-{}", self.below(1_000_000)));
                    (key, value)
                })
                .collect();
            let codec = self.below(5);
            let codec = Compression::ALL[usize::try_from(codec).expect("a small number")];
            self.send(client, topic, codec, records);
        }
    }

    fn send(
        &mut self,
        client: &mut Client,
        topic: &str,
        codec: Compression,
        records: Vec<(String, Option<String>)>,
    ) {
        self.time += 1;
        let mut builder = Builder::new().compression(codec, None);
        for (key, value) in &records {
            let value = value.as_deref().map(str::as_bytes);
            builder.push(self.time, Some(key.as_bytes()), value, &[]);
        }
        let batch = builder.build().expect("records make a batch");
        let response = client.produce(topic, 0, batch.bytes().clone());
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0);
        assert_eq!(partition.base_offset, self.end());
        for (key, value) in records {
            match &value {
                Some(value) => self.content.insert(key.clone(), value.clone()),
                None => self.content.remove(&key),
            };
            self.sent.push((key, value));
        }
    }

    /// Enough of a key of its own that all before can be compacted.
    fn roll(&mut self, client: &mut Client, topic: &str) {
        for _ in 0..=SEGMENT {
            let filler = ("filler".to_owned(), Some("x".to_owned()));
            self.send(client, topic, Compression::None, vec![filler]);
        }
    }

    fn end(&self) -> i64 {
        i64::try_from(self.sent.len()).expect("few records")
    }

    /// Reads all there is, which must be some of what was sent and tell the same as all of it.
    fn read(&self, client: &mut Client, topic: &str) -> Vec<Record> {
        let records = read(client, topic, self.end());
        let mut content = Content::new();
        for record in &records {
            let sent = &self.sent[usize::try_from(record.offset).expect("an offset")];
            assert_eq!((&record.key, &record.value), (&sent.0, &sent.1));
            match &record.value {
                Some(value) => content.insert(record.key.clone(), value.clone()),
                None => content.remove(&record.key),
            };
        }
        assert_eq!(content, self.content);
        records
    }

    /// Waits until of each key one record is left, but for the newest, which are not looked at yet.
    fn compacted(&self, client: &mut Client, topic: &str) -> Vec<Record> {
        let begin = Instant::now();
        loop {
            let records = self.read(client, topic);
            // What is in the active segment, and a batch that began before it.
            let settled = records.len().saturating_sub(5 * (SEGMENT + 2));
            let mut keys: Vec<_> = records[..settled]
                .iter()
                .map(|record| &record.key)
                .collect();
            keys.sort();
            keys.dedup();
            if keys.len() == settled && records.len() < self.sent.len() {
                return records;
            }
            assert!(begin.elapsed() < LIMIT, "{topic} is not compacted");
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    offset: i64,
    key: String,
    value: Option<String>,
}

fn read(client: &mut Client, topic: &str, end: i64) -> Vec<Record> {
    let mut found: Vec<Record> = Vec::new();
    let mut next = 0;
    while next < end {
        let more = fetch(client, topic, next);
        for batch in Batch::split(more).expect("whole batches") {
            let header = *batch.header();
            assert!(next <= header.last_offset(), "offsets ascend");
            next = header.next_offset();
            found.extend(records(&batch));
        }
    }
    assert!(found.is_sorted_by(|one, next| one.offset < next.offset));
    found
}

fn fetch(client: &mut Client, topic: &str, offset: i64) -> Bytes {
    let response = client.fetch(topic, 0, offset);
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0, "at {offset}");
    let records = partition.records.clone().unwrap_or_default();
    assert!(!records.is_empty(), "nothing at {offset}");
    records
}

fn records(batch: &Batch) -> Vec<Record> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let records = batch.records(1 << 20).expect("records");
    records
        .map(|record| {
            let record = record.expect("a record");
            Record {
                offset: record.offset,
                key: text(&record.key.expect("a key")),
                value: record.value.as_deref().map(text),
            }
        })
        .collect()
}

/// Sets a broker's configuration for the whole cluster.
fn configure(client: &mut Client, key: &str, value: &str) {
    const BROKER: i8 = 4;
    let config = AlterableConfig::default()
        .with_name(key.to_owned().into())
        .with_value(Some(value.to_owned().into()));
    let resource = AlterConfigsResource::default()
        .with_resource_type(BROKER)
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.call(1, &request).responses[0].error_code, 0);
}

/// The program itself, so that it can be killed.
struct Program {
    process: Child,
    address: SocketAddr,
}

impl Program {
    fn start(dir: &Path) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sordini"));
        let overrides = [
            ("log.dirs", dir.to_str().expect("a path in Unicode")),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("sordini.metrics.listener", ""),
            EAGER[0],
        ];
        for (key, value) in overrides {
            command.args(["--override", &format!("{key}={value}")]);
        }
        let mut process = command
            .env_clear()
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let stdout = process.stdout.take().expect("its output is ours");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let address = lines
            .find(|line| line.contains("serving"))
            .and_then(|line| {
                let (_, address) = line.split_once("address=")?;
                address.split_whitespace().next()?.parse().ok()
            });
        // What it says must be taken, or it stops.
        thread::spawn(move || lines.count());
        Program {
            process,
            address: address.expect("it says where it serves"),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Kill -9.
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }
}

/// Random keys and deletions while the cleaner works, kills in between: who reads from the start knows
/// what one knows who was there all the time.
#[test]
fn a_reader_of_a_compacted_topic_knows_all_there_is_to_know() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut producer = Producer::new(7);
    for round in 0..4 {
        let program = Program::start(dir.path());
        let client = &mut Client::connect(program.address);
        if round == 0 {
            client.create_topic_with("t", 1, &COMPACTED);
        }
        producer.read(client, "t");
        producer.random(client, "t", 250, 50);
        if round % 2 == 0 {
            let left = producer.compacted(client, "t");
            // From an offset that is gone one reads on with the next that is left. The cleaner goes on
            // meanwhile.
            let offsets: Vec<i64> = (0..producer.end()).step_by(11).collect();
            let next_of = |left: &[Record], offset| {
                let next = left.iter().find(|record| offset <= record.offset);
                next.map(|record| record.offset)
            };
            let found: Vec<_> = offsets
                .iter()
                .map(|offset| {
                    let batches = Batch::split(fetch(client, "t", *offset)).expect("whole batches");
                    let records: Vec<_> = batches.iter().flat_map(records).collect();
                    next_of(&records, *offset)
                })
                .collect();
            let later = producer.read(client, "t");
            for (offset, found) in offsets.into_iter().zip(found) {
                assert!(next_of(&left, offset) <= found, "from {offset}");
                assert!(found <= next_of(&later, offset), "from {offset}");
            }
        }
        drop(program);
    }
}

#[test]
fn a_restart_goes_on_where_the_cleaner_was() {
    let broker = TestBroker::start_with(&EAGER);
    let mut producer = Producer::new(1);
    {
        let client = &mut broker.client();
        client.create_topic_with("t", 1, &COMPACTED);
        producer.random(client, "t", 300, 20);
        producer.compacted(client, "t");
    }
    let broker = broker.restart(&EAGER);
    let checkpoint = fs::read_to_string(broker.dir.path().join("data/cleaner-offset-checkpoint"));
    let checkpoint = checkpoint.expect("the checkpoint");
    assert!(checkpoint.starts_with("0\n1\nt 0 "), "{checkpoint}");
    let client = &mut broker.client();
    producer.random(client, "t", 300, 20);
    producer.compacted(client, "t");
    assert!(broker.metric("kafka_log_logcleaner_cleaner_recopy_percent ") > 0.0);
    assert_eq!(broker.metric("kafka_log_logcleaner_deadthreadcount "), 0.0);
}

#[test]
fn tombstones_go_when_delete_retention_is_over() {
    let broker = TestBroker::start_with(&EAGER);
    let client = &mut broker.client();
    let mut configs = COMPACTED;
    configs[3].1 = "1";
    client.create_topic_with("t", 1, &configs);
    let mut producer = Producer::new(2);
    producer.random(client, "t", 200, 20);
    let begin = Instant::now();
    loop {
        // What was found to be a tombstone in one compaction goes in the next.
        producer.roll(client, "t");
        let records = producer.read(client, "t");
        if records.iter().all(|record| record.value.is_some()) {
            break;
        }
        assert!(begin.elapsed() < LIMIT, "{records:?}");
    }
}

/// As Apache Kafka 4.4.0 was seen to answer, word for word.
#[test]
fn a_compacted_topic_takes_keys_only_and_gives_nothing_up() {
    let broker = TestBroker::start();
    let client = &mut broker.client();
    for (topic, policy) in [("compacted", "compact"), ("both", "compact,delete")] {
        client.create_topic_with(topic, 1, &[("cleanup.policy", policy)]);
        let response = client.produce(topic, 0, batch(&["no key"]));
        let refused = &response.responses[0].partition_responses[0];
        assert_eq!(refused.error_code, ErrorCode::InvalidRecord.code());
        let message = format!(
            "Compacted topic cannot accept message without key in topic partition {topic}-0"
        );
        assert_eq!(
            refused.error_message.as_deref(),
            Some(&*format!(
                "One or more records have been rejected due to 1 record errors in total, and only showing \
                 the first three errors at most: [RecordError(batchIndex=0, message='{message}')]"
            ))
        );
        let errors = &refused.record_errors;
        assert_eq!((errors.len(), errors[0].batch_index), (1, 0));
        assert_eq!(
            errors[0].batch_index_error_message.as_deref(),
            Some(&*message)
        );
    }
    let mut producer = Producer::new(3);
    producer.random(client, "compacted", 1, 1);
    let deleted = |client: &mut Client, topic| {
        let partition = DeleteRecordsPartition::default().with_offset(1);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        client.call(2, &request).topics[0].partitions[0].error_code
    };
    assert_eq!(
        deleted(client, "compacted"),
        ErrorCode::PolicyViolation.code()
    );
    assert_eq!(deleted(client, "both"), ErrorCode::OffsetOutOfRange.code());
    Producer::new(4).random(client, "both", 1, 1);
    assert_eq!(deleted(client, "both"), 0);
}

/// The rate is so low that the compaction is under way when its topic is deleted, and then raised.
#[test]
fn a_topic_may_be_deleted_while_it_is_compacted_and_come_again() {
    let slow = [
        EAGER[0],
        ("log.cleaner.io.max.bytes.per.second", "1000000"),
        ("log.cleaner.io.buffer.size", "40000"),
        ("log.segment.delete.delay.ms", "10"),
    ];
    let broker = TestBroker::start_with(&slow);
    let client = &mut broker.client();
    client.create_topic_with("t", 1, &COMPACTED);
    let mut producer = Producer::new(5);
    for key in 0..300 {
        let record = (format!("key-{key}"), Some("x".repeat(10_000)));
        producer.send(client, "t", Compression::None, vec![record]);
    }
    let data = broker.dir.path().join("data");
    let files = |dir: &Path| -> Vec<String> {
        let names = fs::read_dir(dir).into_iter().flatten().flatten();
        names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let begin = Instant::now();
    while !files(&data.join("t-0"))
        .iter()
        .any(|file| file.ends_with(".cleaned"))
    {
        assert!(begin.elapsed() < LIMIT, "nothing is compacted");
    }
    configure(client, "log.cleaner.io.max.bytes.per.second", "1");
    let delete = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name("t")])
        .with_timeout_ms(10_000);
    assert_eq!(client.call(5, &delete).responses[0].error_code, 0);
    client.create_topic_with("t", 1, &COMPACTED);
    let mut producer = Producer::new(6);
    producer.random(client, "t", 300, 20);
    producer.read(client, "t");
    while files(&data).iter().any(|file| file.ends_with("-delete")) {
        assert!(begin.elapsed() < LIMIT, "the files stay");
    }
    configure(client, "log.cleaner.io.max.bytes.per.second", "100000000");
    producer.compacted(client, "t");
    assert_eq!(
        broker.metric("kafka_log_logmanager_offlinelogdirectorycount "),
        0.0
    );
}

#[test]
fn a_log_that_cannot_be_compacted_is_shown_and_the_others_go_on() {
    let lazy = [("log.cleaner.enable", "false")];
    let mut broker = TestBroker::start_with(&lazy);
    let mut producer = Producer::new(8);
    {
        let client = &mut broker.client();
        for topic in ["bad", "good"] {
            client.create_topic_with(topic, 1, &COMPACTED);
        }
        Producer::new(9).random(client, "bad", 200, 20);
        producer.random(client, "good", 200, 20);
    }
    broker.stop();
    let path = broker
        .dir
        .path()
        .join("data/bad-0/00000000000000000000.log");
    let mut bytes = fs::read(&path).expect("the first segment");
    bytes[70] ^= 1;
    fs::write(&path, bytes).expect("a damaged segment");
    let broker = broker.restart(&EAGER);
    let client = &mut broker.client();
    producer.compacted(client, "good");
    let count = "kafka_log_logcleanermanager_uncleanable_partitions_count";
    let bytes = "kafka_log_logcleanermanager_uncleanable_bytes";
    let begin = Instant::now();
    while broker.metric(count) != 1.0 {
        assert!(begin.elapsed() < LIMIT, "the damage is not found");
    }
    assert!(broker.metric(bytes) > 0.0);
    producer.random(client, "good", 200, 20);
    producer.compacted(client, "good");

    let delete = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name("bad")])
        .with_timeout_ms(10_000);
    assert_eq!(client.call(5, &delete).responses[0].error_code, 0);
    while broker.metric(count) != 0.0 {
        assert!(begin.elapsed() < LIMIT, "it is remembered");
    }
}

#[test]
fn a_log_that_moves_takes_along_how_far_it_is_compacted() {
    let dirs = tempfile::tempdir().expect("a directory");
    let dirs = ["first", "second"].map(|dir| dirs.path().join(dir));
    let both = dirs.each_ref().map(|dir| dir.display().to_string());
    let broker = TestBroker::start_with(&[("log.dirs", &both.join(",")), EAGER[0]]);
    let client = &mut broker.client();
    client.create_topic_with("t", 1, &COMPACTED);
    let mut producer = Producer::new(10);
    producer.random(client, "t", 300, 20);
    producer.compacted(client, "t");
    let to = dirs
        .iter()
        .find(|dir| !dir.join("t-0").exists())
        .expect("it is in one of them");
    let topic = AlterReplicaLogDirTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![0]);
    let dir = AlterReplicaLogDir::default()
        .with_path(to.display().to_string().into())
        .with_topics(vec![topic]);
    let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]);
    assert_eq!(
        client.call(2, &request).results[0].partitions[0].error_code,
        0
    );
    let begin = Instant::now();
    let position = || {
        let text = fs::read_to_string(to.join("cleaner-offset-checkpoint")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("t 0 "));
        line.and_then(|offset| offset.parse::<i64>().ok())
    };
    while position().is_none_or(|offset| offset == 0) {
        assert!(begin.elapsed() < LIMIT, "it does not move");
    }
    producer.random(client, "t", 300, 20);
    producer.compacted(client, "t");
}
