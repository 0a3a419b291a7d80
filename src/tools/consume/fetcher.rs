//! Records out of partitions, from their leaders, in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::messages::{
    FetchRequest,
    fetch_request::{FetchPartition, FetchTopic},
    fetch_response::PartitionData,
};
use protocol::{
    batch::{Batch, Header, TimestampType},
    error::ErrorCode,
    record::Headers,
    records::control::ControlRecord,
};

use crate::client::{Client, Error, Partition, Refusal, refused, topic_name};

/// The newest Fetch that names topics; later ones know them by id only.
const FETCH: i16 = 12;

/// What one partition and one answer may bring, as with Kafka's consumer.
const PARTITION_BYTES: i32 = 1 << 20;
const RESPONSE_BYTES: i32 = 50 << 20;

/// What a batch may grow to when it is decompressed.
const DECOMPRESSED_MAX: usize = 1 << 30;

/// Before a partition is asked again that had no leader.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

/// A record, and where it is from.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) partition: Partition,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) timestamp: i64,
    pub(super) timestamp_type: TimestampType,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Headers,
}

#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client,
    isolation: Isolation,
    /// The next offset of each partition that is read.
    positions: BTreeMap<Partition, i64>,
    leaders: BTreeMap<Partition, i32>,
    /// Why the last fetch did not reach a broker.
    away: Option<Error>,
}

impl Fetcher {
    pub(super) fn new(client: Client, isolation: Isolation) -> Fetcher {
        Fetcher {
            client,
            isolation,
            positions: BTreeMap::new(),
            leaders: BTreeMap::new(),
            away: None,
        }
    }

    /// Why the last fetch did not reach a broker, if it did not.
    pub(super) fn away(&mut self) -> Option<Error> {
        self.away.take()
    }

    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    pub(super) fn positions(&self) -> &BTreeMap<Partition, i64> {
        &self.positions
    }

    pub(super) fn forget_all(&mut self) {
        self.positions.clear();
        self.leaders.clear();
    }

    pub(super) fn begin_at(&mut self, partition: Partition, offset: i64) {
        self.positions.insert(partition, offset);
    }

    /// Begins to read partitions from an offset, or from the one that a negative number means (-1 end, -2 start).
    pub(super) async fn begin(
        &mut self,
        partitions: &[Partition],
        start: i64,
    ) -> Result<(), Error> {
        if 0 <= start {
            for partition in partitions {
                self.begin_at(partition.clone(), start);
            }
            return Ok(());
        }
        let wanted = partitions
            .iter()
            .map(|partition| (partition.clone(), start));
        for (partition, listed) in self.client.list_offsets(&wanted.collect()).await? {
            self.begin_at(partition, listed?.offset);
        }
        Ok(())
    }

    /// Waits up to `wait` for records. A partition that moves or is cut off meanwhile is looked for again; a broker that
    /// cannot be reached is no error, or what others have answered would be lost.
    pub(super) async fn fetch(&mut self, wait: Duration) -> Result<Vec<Fetched>, Error> {
        self.away = None;
        if self
            .positions
            .keys()
            .any(|partition| !self.leaders.contains_key(partition))
        {
            let mut topics: Vec<&str> = self
                .positions
                .keys()
                .map(|(topic, _)| topic.as_str())
                .collect();
            topics.dedup();
            let leaders = self.client.leaders(&topics).await;
            self.leaders = self.unless_away(leaders).await?.unwrap_or_default();
            self.leaders.retain(|_, leader| 0 <= *leader);
        }
        let leaders: BTreeSet<i32> = self.leaders.values().copied().collect();
        if leaders.is_empty() {
            tokio::time::sleep(wait.min(RETRY_PAUSE)).await;
            return Ok(Vec::new());
        }
        // One after the other, so each may keep the rest waiting only for its share.
        let share = wait / u32::try_from(leaders.len()).unwrap_or(u32::MAX);
        let mut records = Vec::new();
        for leader in leaders {
            self.fetch_from(leader, share, &mut records).await?;
        }
        Ok(records)
    }

    async fn fetch_from(
        &mut self,
        leader: i32,
        wait: Duration,
        records: &mut Vec<Fetched>,
    ) -> Result<(), Error> {
        let mut topics: BTreeMap<&str, Vec<FetchPartition>> = BTreeMap::new();
        for (partition, offset) in &self.positions {
            if self.leaders.get(partition) == Some(&leader) {
                let wanted = FetchPartition::default()
                    .with_partition(partition.1)
                    .with_fetch_offset(*offset)
                    .with_partition_max_bytes(PARTITION_BYTES);
                topics.entry(&partition.0).or_default().push(wanted);
            }
        }
        if topics.is_empty() {
            return Ok(());
        }
        let topic = |(name, partitions): (&str, Vec<FetchPartition>)| {
            FetchTopic::default()
                .with_topic(topic_name(name))
                .with_partitions(partitions)
        };
        let request = FetchRequest::default()
            .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(RESPONSE_BYTES)
            .with_isolation_level((self.isolation == Isolation::ReadCommitted).into())
            .with_session_epoch(-1)
            .with_topics(topics.into_iter().map(topic).collect());
        let answer = self.client.at(leader, FETCH, &request).await;
        let Some(response) = self.unless_away(answer).await? else {
            return Ok(());
        };
        refused(response.error_code, None)?;
        for topic in response.responses {
            for data in topic.partitions {
                let partition = (topic.topic.to_string(), data.partition_index);
                match refused(data.error_code, None) {
                    Ok(()) => self.take(partition, data, records)?,
                    Err(refusal) => self.recover(partition, refusal).await?,
                }
            }
        }
        Ok(())
    }

    /// `None` if a broker cannot be reached. It may have restarted, or another leads now: the cluster is asked before the
    /// next attempt.
    async fn unless_away<T>(&mut self, outcome: Result<T, Error>) -> Result<Option<T>, Error> {
        match outcome {
            Ok(answer) => Ok(Some(answer)),
            Err(err) if err.is_away() => {
                self.leaders.clear();
                self.away = Some(err);
                tokio::time::sleep(RETRY_PAUSE).await;
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    async fn recover(&mut self, partition: Partition, refusal: Refusal) -> Result<(), Error> {
        match refusal.code {
            // Retention has gone past the position, or the log was cut: read on from what there is.
            ErrorCode::OffsetOutOfRange => {
                let begun = self.begin(&[partition], -2).await;
                self.unless_away(begun).await.map(drop)
            }
            code if code.is_retriable() => {
                self.leaders.remove(&partition);
                tokio::time::sleep(RETRY_PAUSE).await;
                Ok(())
            }
            _ => Err(refusal.into()),
        }
    }

    /// Takes the records out of what came for a partition, and moves its position behind them.
    fn take(
        &mut self,
        partition: Partition,
        data: PartitionData,
        records: &mut Vec<Fetched>,
    ) -> Result<(), Error> {
        let Some(position) = self.positions.get_mut(&partition) else {
            return Ok(());
        };
        let mut aborted: Vec<(i64, i64)> = data
            .aborted_transactions
            .unwrap_or_default()
            .into_iter()
            .map(|transaction| (transaction.first_offset, transaction.producer_id.0))
            .collect();
        aborted.sort_unstable_by(|a, b| b.cmp(a));
        let mut void: BTreeSet<i64> = BTreeSet::new();
        for batch in whole_batches(data.records.unwrap_or_default(), &partition)? {
            let header = *batch.header();
            while aborted
                .last()
                .is_some_and(|(first, _)| *first <= header.last_offset())
            {
                void.extend(aborted.pop().map(|(_, producer)| producer));
            }
            let next = header.next_offset();
            let is_void = header.is_transactional() && void.contains(&header.producer_id);
            if header.is_control() {
                if is_abort(&batch) {
                    void.remove(&header.producer_id);
                }
            } else if !is_void {
                let wrong = |err: &dyn std::fmt::Display| corrupt(&partition, err);
                for record in batch.records(DECOMPRESSED_MAX).map_err(|err| wrong(&err))? {
                    let record = record.map_err(|err| wrong(&err))?;
                    // A batch may begin before the offset that was asked for.
                    if *position <= record.offset {
                        records.push(Fetched {
                            partition: partition.clone(),
                            offset: record.offset,
                            leader_epoch: header.leader_epoch,
                            timestamp: record.timestamp,
                            timestamp_type: header.timestamp_type(),
                            key: record.key,
                            value: record.value,
                            headers: record.headers,
                        });
                    }
                }
            }
            *position = next.max(*position);
        }
        Ok(())
    }
}

/// The whole batches in an answer, the last of which may be cut off.
fn whole_batches(mut bytes: Bytes, partition: &Partition) -> Result<Vec<Batch>, Error> {
    let mut batches = Vec::new();
    while protocol::batch::HEADER_SIZE <= bytes.len() {
        let size = Header::parse(&bytes)
            .map_err(|err| corrupt(partition, &err))?
            .size;
        if bytes.len() < size {
            break;
        }
        let batch = Batch::parse(bytes.split_to(size));
        batches.push(batch.map_err(|err| corrupt(partition, &err))?);
    }
    Ok(batches)
}

fn is_abort(batch: &Batch) -> bool {
    let records = batch.records(DECOMPRESSED_MAX);
    let first = records.ok().and_then(|mut records| records.next()?.ok());
    first.is_some_and(|record| {
        let (key, value) = (
            record.key.unwrap_or_default(),
            record.value.unwrap_or_default(),
        );
        matches!(
            ControlRecord::decode(key, value),
            Ok(ControlRecord::Abort(_))
        )
    })
}

fn corrupt(partition: &Partition, err: &dyn std::fmt::Display) -> Error {
    Error::Refused(Refusal {
        code: ErrorCode::CorruptMessage,
        message: Some(format!(
            "what came for {}-{} cannot be read: {err}",
            partition.0, partition.1
        )),
    })
}
