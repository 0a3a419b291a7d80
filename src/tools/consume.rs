//! `sordini consume`: what `kafka-console-consumer.sh` does: records to standard output.
//!
//! With `--group` it is a real member of the group (of the classic protocol, with the range assignor, which Kafka's Java
//! clients offer too): it shares the partitions with the other members, commits what it has printed, and leaves. Without a
//! group it reads all partitions by itself and commits nothing; Kafka's tool makes up a group's name then.

mod assignor;
mod deserializer;
mod fetcher;
mod membership;
mod printer;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Args;
use fetcher::{Fetched, Fetcher, Isolation};
use kafka_protocol::messages::{MetadataRequest, metadata_request::MetadataRequestTopic};
use membership::Membership;
use printer::Printer;
use protocol::error::ErrorCode;
use tokio::time::Instant;

use super::{Connection, Failure, console::Console, required, topic_filter::TopicFilter};
use crate::client::{self, Committed, Partition, Settings, pairs, refused, topic_name};

/// How long a fetch waits for records: also how soon an interrupt is noticed.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// How often topics and partitions that are new are looked for.
const REFRESH: Duration = Duration::from_secs(30);

/// Before the cluster is asked again after a broker could not be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// The topic to read
    #[arg(long, value_name = "topic")]
    topic: Option<String>,
    /// The topics to read, as a regular expression
    #[arg(long, value_name = "regex")]
    include: Option<String>,
    /// Only this partition
    #[arg(long, value_name = "index")]
    partition: Option<i32>,
    /// From where in the partition: earliest, latest or an offset
    #[arg(long, value_name = "offset", allow_negative_numbers = true)]
    offset: Option<String>,
    /// From the first record, unless the group has been further already
    #[arg(long)]
    from_beginning: bool,
    /// Be a member of this group and commit what is printed
    #[arg(long, value_name = "id")]
    group: Option<String>,
    /// End after so many records
    #[arg(long, value_name = "count", allow_negative_numbers = true)]
    max_messages: Option<i64>,
    /// End if no record comes for so long
    #[arg(long, value_name = "ms", allow_negative_numbers = true)]
    timeout_ms: Option<i64>,
    /// What is printed of a record: print.key, print.value, print.timestamp, print.partition, print.offset,
    /// print.headers, key.separator, line.separator, headers.separator, null.literal; may be repeated
    #[arg(
        long = "formatter-property",
        alias = "property",
        value_name = "key=value"
    )]
    formatter_property: Vec<String>,
    /// The same from a file
    #[arg(long, value_name = "file")]
    formatter_config: Option<PathBuf>,
    /// Kafka's formatter: Default, Logging, NoOp or OffsetsMessageFormatter
    #[arg(long, value_name = "class")]
    formatter: Option<String>,
    /// Kafka's deserializer of keys: String, Integer, Long, Short, ByteArray
    #[arg(long, value_name = "class")]
    key_deserializer: Option<String>,
    /// Kafka's deserializer of values
    #[arg(long, value_name = "class")]
    value_deserializer: Option<String>,
    /// Consumer properties: group.id, auto.offset.reset, isolation.level, client.id...; may be repeated
    #[arg(
        long = "command-property",
        alias = "consumer-property",
        value_name = "key=value"
    )]
    command_property: Vec<String>,
    /// The same from a file
    #[arg(long = "consumer.config", value_name = "file", hide = true)]
    consumer_config: Option<PathBuf>,
    /// read_committed leaves out what transactions have not committed
    #[arg(long, value_name = "level")]
    isolation_level: Option<String>,
    /// Say when it is over, for tests
    #[arg(long, hide = true)]
    enable_systest_events: bool,
    /// Go on after a record that cannot be printed
    #[arg(long)]
    skip_message_on_error: bool,
}

/// How records are read.
#[derive(Debug, Default)]
struct Reading {
    group: Option<String>,
    /// `auto.offset.reset`, if it was given.
    reset: Option<String>,
    isolation: Option<String>,
    auto_commit: Option<bool>,
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    required(
        options.connection.bootstrap_server.as_deref(),
        "bootstrap-server",
    )?;
    check(&options)?;
    let mut settings = options.connection.settings("sordini-consume")?;
    let reading = reading(&options, &mut settings)?;
    let isolation = isolation(&options, &reading)?;
    let printer = Printer::new(&options)?;
    let filter = match &options.include {
        Some(pattern) => Some(TopicFilter::new(pattern, true)?),
        None => None,
    };
    let servers = required(
        options.connection.bootstrap_server.as_deref(),
        "bootstrap-server",
    )?;
    let client = super::connect(servers, settings, console).await?;
    let from_beginning = options.from_beginning || reading.reset.as_deref() == Some("earliest");
    let mut session = Session {
        start: if from_beginning { EARLIEST } else { LATEST },
        fetcher: Fetcher::new(client, isolation),
        membership: reading.group.clone().map(Membership::new),
        auto_commit: reading.auto_commit.unwrap_or(true),
        filter,
        partitions: BTreeMap::new(),
        consumed: BTreeMap::new(),
        options: &options,
        printer,
        printed: 0,
        refreshed_at: Instant::now(),
        topics_changed: false,
    };
    let outcome = session.run(console).await;
    // Whatever happened: what was printed counts, and the group need not wait for this member.
    let closed = session.close().await;
    let count = session.printed;
    let told = console.flush();
    console.complain(&format!("Processed a total of {count} messages"));
    if options.enable_systest_events {
        console.line("shutdown_complete")?;
    }
    outcome.and(closed).and(told)
}

fn check(options: &Options) -> Result<(), Failure> {
    let usage = |text: String| Err(Failure::Usage(text));
    if options.topic.is_some() == options.include.is_some() {
        return usage(
            "Exactly one of the following arguments is required: [topic], [include]".to_owned(),
        );
    }
    if options.partition.is_some() && options.topic.is_none() {
        return usage("The topic is required when partition is specified.".to_owned());
    }
    if options.offset.is_some() && options.partition.is_none() {
        return usage("The partition is required when offset is specified.".to_owned());
    }
    if options.from_beginning && options.offset.is_some() {
        return usage("Options from-beginning and offset cannot be specified together.".to_owned());
    }
    if options.partition.is_some() && options.group.is_some() {
        return usage("Options group and partition cannot be specified together.".to_owned());
    }
    start_offset(options).map(drop)
}

/// Where `--offset` says to begin.
fn start_offset(options: &Options) -> Result<Option<i64>, Failure> {
    let Some(text) = &options.offset else {
        return Ok(None);
    };
    match text.to_ascii_lowercase().as_str() {
        "earliest" => Ok(Some(EARLIEST)),
        "latest" => Ok(Some(LATEST)),
        other => match other.parse() {
            Ok(offset) if 0 <= offset => Ok(Some(offset)),
            _ => Err(Failure::Usage(format!(
                "The provided offset value '{text}' is incorrect. Valid values are 'earliest', 'latest', or a non-negative long."
            ))),
        },
    }
}

fn reading(options: &Options, settings: &mut Settings) -> Result<Reading, Failure> {
    let mut properties = Vec::new();
    for file in [&options.consumer_config, &options.connection.command_config]
        .into_iter()
        .flatten()
    {
        properties.extend(pairs(file)?);
    }
    for property in &options.command_property {
        let (key, value) = property.split_once('=').unwrap_or((property, ""));
        properties.push((key.to_owned(), value.to_owned()));
    }
    let mut reading = Reading::default();
    for (key, value) in properties {
        match key.as_str() {
            "group.id" => reading.group = Some(value),
            "auto.offset.reset" => reading.reset = Some(value),
            "isolation.level" => reading.isolation = Some(value),
            "enable.auto.commit" => reading.auto_commit = Some(value == "true"),
            "group.protocol" if value.eq_ignore_ascii_case("consumer") => {
                return Err(Failure::Refused(
                    "group.protocol=consumer: this tool joins groups by the classic protocol only"
                        .to_owned(),
                ));
            }
            _ => settings.set(&key, &value)?,
        }
    }
    if let (Some(named), Some(given)) = (&options.group, &reading.group)
        && named != given
    {
        return Err(Failure::Usage(format!(
            "The group ids provided in different places (directly using '--group', via '--consumer-property', or via \
             '--consumer.config') do not match. Detected group ids: '{named}', '{given}'"
        )));
    }
    reading.group = options.group.clone().or(reading.group);
    if options.partition.is_some() {
        reading.group = None;
    }
    match (options.from_beginning, reading.reset.as_deref()) {
        (true, Some("latest")) => Err(Failure::Refused(
            "Can't simultaneously specify --from-beginning and 'auto.offset.reset=latest', please remove one option"
                .to_owned(),
        )),
        (_, Some(other)) if !matches!(other, "earliest" | "latest") => Err(Failure::Refused(format!(
            "Invalid value {other} for configuration auto.offset.reset: earliest or latest is expected"
        ))),
        _ => Ok(reading),
    }
}

fn isolation(options: &Options, reading: &Reading) -> Result<Isolation, Failure> {
    let level = options
        .isolation_level
        .as_ref()
        .or(reading.isolation.as_ref());
    match level.map(|level| level.to_ascii_lowercase()).as_deref() {
        None | Some("read_uncommitted") => Ok(Isolation::ReadUncommitted),
        Some("read_committed") => Ok(Isolation::ReadCommitted),
        Some(other) => Err(Failure::Refused(format!(
            "Invalid value {other} for configuration isolation.level: String must be one of: read_committed, read_uncommitted"
        ))),
    }
}

/// Reading, from the first record to the last.
struct Session<'a> {
    options: &'a Options,
    fetcher: Fetcher,
    membership: Option<Membership>,
    auto_commit: bool,
    filter: Option<TopicFilter>,
    printer: Printer,
    /// Where partitions begin of which nothing is known: the time that means their start or their end.
    start: i64,
    /// How many partitions each topic has that is read.
    partitions: BTreeMap<String, i32>,
    /// Up to where each partition has been printed: where the group is to go on.
    consumed: BTreeMap<Partition, Committed>,
    printed: i64,
    refreshed_at: Instant,
    /// The topics are others than those that are being read.
    topics_changed: bool,
}

impl Session<'_> {
    async fn run(&mut self, console: &mut Console) -> Result<(), Failure> {
        let stopping = stop_on_signal();
        self.refresh().await?;
        match self.membership {
            None => self.take_all().await?,
            Some(_) => self.join().await?,
        }
        let patience = self.options.timeout_ms.filter(|&ms| 0 <= ms);
        let patience = patience.map(|ms| Duration::from_millis(ms.unsigned_abs()));
        let limit = self.options.max_messages.filter(|&max| 0 <= max);
        let mut heard_at = Instant::now();
        let mut told = false;
        while limit.is_none_or(|limit| self.printed < limit) && !stopping.load(Ordering::Relaxed) {
            let left = patience.map(|patience| patience.saturating_sub(heard_at.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            self.fetcher.client().begin_operation();
            let wait = FETCH_WAIT.min(left.unwrap_or(FETCH_WAIT));
            let records = self.fetcher.fetch(wait).await?;
            if !records.is_empty() {
                heard_at = Instant::now();
            }
            self.print(&records, limit, console)?;
            // A broker that restarts is waited for: whoever reads for long outlives that.
            let away = match self.keep_up().await {
                Ok(()) => self.fetcher.away(),
                Err(Failure::Client(err)) if may_pass(&err) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    Some(err)
                }
                Err(err) => return Err(err),
            };
            if let Some(err) = &away
                && !told
            {
                console.complain(&format!("Trying again: {err}"));
            }
            told = away.is_some();
        }
        Ok(())
    }

    /// Prints records, no more than `limit` in all.
    fn print(
        &mut self,
        records: &[Fetched],
        limit: Option<i64>,
        console: &mut Console,
    ) -> Result<(), Failure> {
        for record in records {
            if limit.is_some_and(|limit| limit <= self.printed) {
                break;
            }
            match self.printer.print(record, console) {
                Err(Failure::Refused(why)) if self.options.skip_message_on_error => {
                    console.complain(&format!(
                        "Error processing message, skipping this message: {why}"
                    ));
                }
                printed => printed?,
            }
            let at = Committed {
                offset: record.offset + 1,
                leader_epoch: record.leader_epoch,
            };
            self.consumed.insert(record.partition.clone(), at);
            self.printed += 1;
        }
        self.note_positions(records);
        console.flush()
    }

    /// Looks up the topics that are to be read, and notes whether there is something new about them.
    async fn refresh(&mut self) -> Result<(), Failure> {
        let client = self.fetcher.client();
        let mut found = BTreeMap::new();
        let response = match &self.options.topic {
            Some(topic) => {
                // Asking for it creates it, where the cluster allows that: Kafka's tool does so too.
                let topic = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
                let request = MetadataRequest::default()
                    .with_topics(Some(vec![topic]))
                    .with_allow_auto_topic_creation(true);
                let response = client.any(12, &request).await?;
                for topic in &response.topics {
                    match refused(topic.error_code, None) {
                        Err(refusal) if !refusal.code.is_retriable() => return Err(refusal.into()),
                        // It is being created, or will be.
                        _ => (),
                    }
                }
                response
            }
            None => client.metadata(None).await?,
        };
        for topic in response.topics {
            let Some(name) = topic.name.filter(|_| topic.error_code == 0) else {
                continue;
            };
            let is_meant = match &self.filter {
                Some(filter) => filter.matches(&name, topic.is_internal),
                None => true,
            };
            if is_meant {
                let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                found.insert(name.to_string(), count);
            }
        }
        self.topics_changed |= found != self.partitions;
        self.partitions = found;
        self.refreshed_at = Instant::now();
        Ok(())
    }

    /// Reads all partitions, without a group.
    async fn take_all(&mut self) -> Result<(), Failure> {
        let mut partitions: Vec<Partition> = self
            .partitions
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(|index| (topic.clone(), index)))
            .collect();
        let mut start = self.start;
        if let Some(only) = self.options.partition {
            partitions.retain(|(_, index)| *index == only);
            start = start_offset(self.options)?.unwrap_or(start);
        }
        let known = self.fetcher.positions();
        let first_time = known.is_empty();
        partitions.retain(|partition| !known.contains_key(partition));
        // What is written to a partition that has appeared meanwhile is all new.
        let start = if first_time { start } else { EARLIEST };
        self.fetcher.begin(&partitions, start).await?;
        self.topics_changed = false;
        Ok(())
    }

    /// Becomes a member of the group, or takes part in its rebalance, and begins where the group is.
    async fn join(&mut self) -> Result<(), Failure> {
        // Whatever comes of it, this member reads on only when it knows what, and from where.
        self.fetcher.forget_all();
        self.consumed.clear();
        let joined = self.join_at_committed().await;
        match (&joined, &mut self.membership) {
            (Ok(()), _) => self.topics_changed = false,
            (Err(_), Some(membership)) => membership.lose(),
            (Err(_), None) => (),
        }
        joined
    }

    async fn join_at_committed(&mut self) -> Result<(), Failure> {
        let Some(membership) = &mut self.membership else {
            return Ok(());
        };
        let topics: Vec<String> = match &self.options.topic {
            Some(topic) => vec![topic.clone()],
            None => self.partitions.keys().cloned().collect(),
        };
        let assigned = membership.join(&topics, self.fetcher.client()).await?;
        let committed = self.fetcher.client().committed(membership.group()).await?;
        let mut known = Vec::new();
        let mut unknown = Vec::new();
        for partition in assigned {
            match committed.get(&partition) {
                Some(at) => known.push((partition, at.offset)),
                None => unknown.push(partition),
            }
        }
        self.fetcher.begin(&unknown, self.start).await?;
        for (partition, offset) in known {
            self.fetcher.begin_at(partition, offset);
        }
        // Where a group begins is committed too: what is written until a member comes back is not missed.
        self.note_positions(&[]);
        Ok(())
    }

    /// Takes over the positions of partitions of which everything that was fetched has been printed. They may be further than
    /// the last record: markers of transactions are passed over.
    fn note_positions(&mut self, fetched: &[Fetched]) {
        let mut last: BTreeMap<&Partition, i64> = BTreeMap::new();
        for record in fetched {
            last.insert(&record.partition, record.offset);
        }
        for (partition, &position) in self.fetcher.positions() {
            let at = self.consumed.entry(partition.clone()).or_insert(Committed {
                offset: position,
                leader_epoch: -1,
            });
            if last.get(partition).is_none_or(|last| *last < at.offset) {
                at.offset = position;
            }
        }
    }

    /// What there is to do between two fetches.
    async fn keep_up(&mut self) -> Result<(), Failure> {
        let nothing_yet = self.fetcher.positions().is_empty()
            && (self.membership.is_none() || self.partitions.is_empty());
        if nothing_yet || REFRESH <= self.refreshed_at.elapsed() {
            self.refresh().await?;
        }
        let Some(membership) = &mut self.membership else {
            if self.topics_changed || self.fetcher.positions().is_empty() {
                self.take_all().await?;
            }
            return Ok(());
        };
        if self.auto_commit && membership.commit_is_due() {
            let committed = membership
                .commit(&self.consumed, self.fetcher.client())
                .await;
            committed?;
        }
        let rebalances = membership.heartbeat(self.fetcher.client()).await?;
        if rebalances || self.topics_changed {
            if self.auto_commit {
                // The member that gets a partition goes on where this one has been.
                membership
                    .commit(&self.consumed, self.fetcher.client())
                    .await?;
            }
            self.join().await?;
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Failure> {
        let Some(membership) = &mut self.membership else {
            return Ok(());
        };
        if self.auto_commit {
            membership
                .commit(&self.consumed, self.fetcher.client())
                .await?;
        }
        membership.leave(self.fetcher.client()).await?;
        Ok(())
    }
}

/// Is it worth going on? A broker that restarts is away first, and then reads what it knows of the group.
fn may_pass(err: &client::Error) -> bool {
    match err {
        client::Error::Refused(refusal) => matches!(
            refusal.code,
            ErrorCode::NotCoordinator
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::CoordinatorLoadInProgress
        ),
        err => err.is_away(),
    }
}

/// Becomes true when the process is told to stop.
fn stop_on_signal() -> Arc<AtomicBool> {
    use tokio::signal::unix::{SignalKind, signal};
    let stopping = Arc::new(AtomicBool::new(false));
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        // Where signals cannot be waited for they end the process by themselves.
        let Ok(mut signal) = signal(kind) else {
            continue;
        };
        let stopping = Arc::clone(&stopping);
        tokio::spawn(async move {
            signal.recv().await;
            stopping.store(true, Ordering::Relaxed);
            // Whoever insists need not wait for an answer.
            signal.recv().await;
            std::process::exit(130);
        });
    }
    stopping
}
