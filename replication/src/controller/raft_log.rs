//! Raft's log and vote, in RocksDB.
//!
//! ```text
//! e INDEX  -> term, kind, payload     one entry; INDEX big-endian, so that a scan goes in order
//! v        -> term, node, committed   the vote
//! p        -> term, index             newest entry that was purged
//! b        -> Base                    where the metadata log stood when Raft's log was last cut
//! i        -> node, cluster           whose database this is
//! ```
//!
//! - An entry is acknowledged, and a vote given, only once it is on disk.
//! - A failed write or fsync is reported and not tried again: Raft stops, and whoever watches
//!   [`RaftLog::failure`] is told what has failed.
//! - The database is tuned to be small, not fast: it holds a few thousand entries, and its reads are
//!   those of a start.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Deref, RangeBounds},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes};
use openraft::{
    AnyError, EntryPayload, ErrorSubject, ErrorVerb, LogState, OptionalSend, RaftLogId,
    RaftLogReader, StorageError, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};
use protocol::batch::Batch;
use rocksdb::{
    DB, DBIterator, Direction, InfoLogger, IteratorMode, LogLevel, Options, WriteBatch,
    WriteOptions,
};

use tokio::sync::{oneshot, watch};

use super::raft::{
    Batches, Entry, LogId, Membership, NodeId, StoredMembership, TypeConfig, Vote, log_id,
};
use crate::error::Error;

const ENTRY: u8 = b'e';
const VOTE: &[u8] = b"v";
const PURGED: &[u8] = b"p";
const BASE: &[u8] = b"b";
const IDENTITY: &[u8] = b"i";

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Where the metadata log stood, flushed, with the entry `applied`: what comes after it follows from
/// the entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership,
    pub(super) end_offset: i64,
}

#[derive(Clone)]
pub(super) struct RaftLog {
    db: Arc<Database>,
}

/// Resolves, with an error, once the last handle on the database is gone and it is closed.
pub(super) type Closed = oneshot::Receiver<()>;

/// What has failed, once something has.
pub(super) type Failure = watch::Receiver<Option<String>>;

struct Database {
    db: DB,
    failed: watch::Sender<Option<String>>,
    /// Dropped after the database.
    _closed: oneshot::Sender<()>,
}

impl Deref for Database {
    type Target = DB;

    fn deref(&self) -> &DB {
        &self.db
    }
}

impl Database {
    /// The result of what must not fail.
    fn done<T>(&self, result: Result<T, rocksdb::Error>) -> Result<T, rocksdb::Error> {
        if let Err(err) = &result {
            let path = self.db.path().display();
            let why = format!("the controller's database in {path} has failed: {err}");
            self.failed.send_if_modified(|failed| {
                let first = failed.is_none();
                failed.get_or_insert(why);
                first
            });
        }
        result
    }
}

impl RaftLog {
    pub(super) fn open(dir: &Path) -> Result<(RaftLog, Closed), Error> {
        let options = options(dir)?;
        sync_wals(dir)?;
        let db = DB::open(&options, dir)?;
        let (sender, closed) = oneshot::channel();
        let db = Arc::new(Database {
            db,
            failed: watch::Sender::new(None),
            _closed: sender,
        });
        Ok((RaftLog { db }, closed))
    }

    pub(super) fn failure(&self) -> Failure {
        self.db.failed.subscribe()
    }

    /// Whose database this is; `None` if it is new.
    pub(super) fn owner(&self) -> Result<Option<String>, Error> {
        let found = self.db.get(IDENTITY)?;
        Ok(found.map(|owner| String::from_utf8_lossy(&owner).into_owned()))
    }

    /// A new cluster, as if `leader` had been elected by `membership` and written it down: a quorum
    /// of one needs no round of votes, and each would cost an fsync.
    pub(super) fn begin(
        &self,
        owner: &str,
        leader: NodeId,
        membership: Membership,
    ) -> Result<(), Error> {
        const FIRST_TERM: u64 = 1;
        let entry = Entry {
            log_id: log_id(FIRST_TERM, 0),
            payload: EntryPayload::Membership(membership),
        };
        let mut batch = WriteBatch::default();
        batch.put(IDENTITY, owner);
        batch.put(VOTE, encode_vote(&Vote::new_committed(FIRST_TERM, leader)));
        batch.put(entry_key(0), encode_entry(&entry));
        Ok(self.db.write_opt(batch, &synced())?)
    }

    /// A database that starts after `base`, as if everything before it had been purged.
    pub(super) fn seed(&self, owner: &str, base: &Base, vote: &Vote) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        batch.put(IDENTITY, owner);
        batch.put(BASE, encode_base(base));
        batch.put(VOTE, encode_vote(vote));
        if let Some(applied) = &base.applied {
            batch.put(PURGED, encode_log_id(applied));
        }
        Ok(self.db.write_opt(batch, &synced())?)
    }

    /// Where the metadata log stood when Raft's log was last cut; its start, if it never was.
    pub(super) fn base(&self) -> Result<Base, Error> {
        match self.db.get(BASE)? {
            Some(bytes) => decode_base(&bytes).ok_or_else(|| damaged("base")),
            None => Ok(Base {
                applied: None,
                membership: StoredMembership::default(),
                end_offset: 0,
            }),
        }
    }

    /// Where the metadata log stands with the newest entry that is whole in it, if it ends at `limit`.
    pub(super) fn end(&self, base: &Base, limit: i64) -> Result<Base, Error> {
        let mut end = base.clone();
        let first = base.applied.map_or(0, |id| id.index + 1);
        for item in self.scan(first) {
            let (key, value) = item?;
            let Some(index) = entry_index(&key) else {
                break;
            };
            let expected = end.applied.map_or(0, |id| id.index + 1);
            if index != expected {
                return Err(damaged("row of entries"));
            }
            let entry = decode_entry(index, &value).ok_or_else(|| damaged("entry"))?;
            let end_offset = end.end_offset + span(&entry)?;
            if limit < end_offset {
                break;
            }
            end.end_offset = end_offset;
            end.applied = Some(entry.log_id);
            if let EntryPayload::Membership(changed) = entry.payload {
                end.membership = StoredMembership::new(Some(entry.log_id), changed);
            }
        }
        Ok(end)
    }

    /// The metadata log is on disk up to here: entries up to `applied` may go.
    pub(super) fn set_base(&self, base: &Base) -> Result<(), Error> {
        let put = self.db.put_opt(BASE, encode_base(base), &synced());
        Ok(self.db.done(put)?)
    }

    fn scan(&self, first: u64) -> DBIterator<'_> {
        self.db
            .iterator(IteratorMode::From(&entry_key(first), Direction::Forward))
    }

    fn last_entry(&self) -> Result<Option<Entry>, Error> {
        let end = [ENTRY + 1];
        let mut before = self
            .db
            .iterator(IteratorMode::From(&end, Direction::Reverse));
        let Some((key, value)) = before.next().transpose()? else {
            return Ok(None);
        };
        match entry_index(&key) {
            None => Ok(None),
            Some(index) => decode_entry(index, &value)
                .map(Some)
                .ok_or_else(|| damaged("entry")),
        }
    }

    pub(super) fn vote(&self) -> Result<Option<Vote>, Error> {
        self.db
            .get(VOTE)?
            .map(|bytes| decode_vote(&bytes).ok_or_else(|| damaged("vote")))
            .transpose()
    }

    fn purged(&self) -> Result<Option<LogId>, Error> {
        self.db
            .get(PURGED)?
            .map(|bytes| decode_log_id(&mut &bytes[..]).ok_or_else(|| damaged("purge mark")))
            .transpose()
    }
}

impl RaftLogReader<TypeConfig> for RaftLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError<NodeId>> {
        let first = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => *index + 1,
            Bound::Unbounded => 0,
        };
        let read = |err: Error| failed(ErrorSubject::Logs, ErrorVerb::Read, &err);
        let mut entries: Vec<Entry> = Vec::new();
        for item in self.scan(first) {
            let (key, value) = self
                .db
                .done(item)
                .map_err(|err| failed(ErrorSubject::Logs, ErrorVerb::Read, &err))?;
            let Some(index) = entry_index(&key).filter(|index| range.contains(index)) else {
                break;
            };
            if entries
                .last()
                .is_some_and(|last| last.log_id.index + 1 != index)
            {
                return Err(read(damaged("row of entries")));
            }
            let entry = decode_entry(index, &value);
            entries.push(entry.ok_or_else(|| read(damaged("entry")))?);
        }
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for RaftLog {
    type LogReader = RaftLog;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError<NodeId>> {
        let read = |err: Error| failed(ErrorSubject::Logs, ErrorVerb::Read, &err);
        let purged = self.purged().map_err(read)?;
        let last = self.last_entry().map_err(read)?;
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last.map(|entry| entry.log_id).or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> RaftLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError<NodeId>> {
        let (db, value) = (self.db.clone(), encode_vote(vote));
        blocking(move || db.done(db.put_opt(VOTE, value, &synced())))
            .await
            .map_err(|err| failed(ErrorSubject::Vote, ErrorVerb::Write, &err))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError<NodeId>> {
        self.vote()
            .map_err(|err| failed(ErrorSubject::Vote, ErrorVerb::Read, &err))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError<NodeId>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = WriteBatch::default();
        for entry in entries {
            batch.put(entry_key(entry.log_id.index), encode_entry(&entry));
        }
        // Two steps, because entries must be readable when this returns, and that must not wait for
        // the disk.
        self.db
            .done(self.db.write(batch))
            .map_err(|err| failed(ErrorSubject::Logs, ErrorVerb::Write, &err))?;
        let db = self.db.clone();
        tokio::task::spawn_blocking(move || {
            let flushed = db.done(db.flush_wal(true));
            callback.log_io_completed(flushed.map_err(io::Error::other));
        });
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError<NodeId>> {
        let mut batch = WriteBatch::default();
        batch.delete_range(entry_key(log_id.index), [ENTRY + 1].to_vec());
        let db = self.db.clone();
        blocking(move || db.done(db.write_opt(batch, &synced())))
            .await
            .map_err(|err| failed(ErrorSubject::Log(log_id), ErrorVerb::Delete, &err))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError<NodeId>> {
        // One write: a log without its beginning and without the mark would be a log with a hole.
        // Nothing waits for it, so it needs no fsync of its own.
        let mut batch = WriteBatch::default();
        batch.put(PURGED, encode_log_id(&log_id));
        batch.delete_range(entry_key(0), entry_key(log_id.index + 1));
        self.db
            .done(self.db.write(batch))
            .map_err(|err| failed(ErrorSubject::Log(log_id), ErrorVerb::Delete, &err))
    }
}

/// Write-ahead logs that may lie there before a start makes a table of them.
const WALS_MAX: usize = 8;

fn options(dir: &Path) -> Result<Options, Error> {
    let mut options = Options::default();
    // A start replays the write-ahead logs and leaves them: a table would be three fsyncs more. Each
    // start adds one, so now and then they must go.
    if wals(dir).len() < WALS_MAX {
        options = options.get_options_from_string("avoid_flush_during_recovery=true")?;
    }
    options.create_if_missing(true);
    // The log is short and lives in the memtable; a second one is there while the first is written.
    options.set_write_buffer_size(1 << 20);
    options.set_max_write_buffer_number(2);
    options.set_arena_block_size(64 << 10);
    options.set_max_background_jobs(2);
    options.set_max_open_files(16);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options.set_max_total_wal_size(8 << 20);
    options.set_avoid_unnecessary_blocking_io(true);
    options.set_max_manifest_file_size(1 << 20);
    // What it has to say belongs into the broker's log: a file of its own is renamed and removed at each
    // start, and an operator does not look there.
    let log = InfoLogger::new_callback_logger(LogLevel::Warn, log);
    options.set_info_logger(log);
    options.set_log_level(LogLevel::Warn);
    // Sixteen by default, made and ended at each start.
    options.set_max_file_opening_threads(1);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(256 << 10));
    options.set_block_based_table_factory(&table);
    Ok(options)
}

fn log(level: LogLevel, text: &str) {
    let text = text.trim_end();
    match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!("the controller's database: {text}"),
        LogLevel::Warn => tracing::warn!("the controller's database: {text}"),
        // Its options, line by line, come at every level that one asks for.
        _ => (),
    }
}

/// None, if there is no database yet.
/// Write-ahead logs, of a database that may not be there yet.
fn wals(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect()
}

/// RocksDB reads what a process before it had written and was killed before it could sync, and syncs only
/// what it writes itself: a power cut could take an entry that others follow by then.
fn sync_wals(dir: &Path) -> Result<(), Error> {
    for path in wals(dir) {
        let synced = std::fs::File::open(&path).and_then(|wal| wal.sync_data());
        synced.map_err(|source| Error::Io {
            op: "fsync",
            path,
            source,
        })?;
    }
    Ok(())
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

async fn blocking(
    work: impl FnOnce() -> Result<(), rocksdb::Error> + Send + 'static,
) -> Result<(), io::Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(io::Error::other),
        Err(panicked) => Err(io::Error::other(panicked)),
    }
}

fn failed<E: std::error::Error + 'static>(
    subject: ErrorSubject<NodeId>,
    verb: ErrorVerb,
    err: &E,
) -> StorageError<NodeId> {
    StorageIOError::new(subject, verb, AnyError::new(err)).into()
}

fn damaged(what: &str) -> Error {
    Error::Corrupt(format!("the controller's database holds a damaged {what}"))
}

/// How many offsets an entry takes in the metadata log.
fn span(entry: &Entry) -> Result<i64, Error> {
    let EntryPayload::Normal(batches) = &entry.payload else {
        return Ok(0);
    };
    let batches = Batch::split(batches.0.clone())
        .map_err(|err| Error::Corrupt(format!("Raft entry {}: {err}", entry.log_id)))?;
    let spans = batches
        .iter()
        .map(|batch| i64::from(batch.header().last_offset_delta) + 1);
    Ok(spans.sum())
}

fn entry_key(index: u64) -> Vec<u8> {
    let mut key = vec![ENTRY];
    key.put_u64(index);
    key
}

fn entry_index(key: &[u8]) -> Option<u64> {
    match key {
        [ENTRY, index @ ..] => Some(u64::from_be_bytes(index.try_into().ok()?)),
        _ => None,
    }
}

fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64(entry.get_log_id().leader_id.term);
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(BLANK),
        EntryPayload::Normal(batches) => {
            out.put_u8(NORMAL);
            out.put_slice(&batches.0);
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(MEMBERSHIP);
            put_json(&mut out, membership);
        }
    }
    out
}

fn decode_entry(index: u64, mut bytes: &[u8]) -> Option<Entry> {
    let term = bytes.try_get_u64().ok()?;
    let kind = bytes.try_get_u8().ok()?;
    let payload = match kind {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(Batches(Bytes::copy_from_slice(bytes))),
        MEMBERSHIP => EntryPayload::Membership(serde_json::from_slice::<Membership>(bytes).ok()?),
        _ => return None,
    };
    Some(Entry {
        log_id: log_id(term, index),
        payload,
    })
}

fn encode_log_id(id: &LogId) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64(id.leader_id.term);
    out.put_u64(id.index);
    out
}

fn decode_log_id(bytes: &mut &[u8]) -> Option<LogId> {
    let term = bytes.try_get_u64().ok()?;
    Some(log_id(term, bytes.try_get_u64().ok()?))
}

fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut out = Vec::new();
    put_json(&mut out, vote);
    out
}

fn decode_vote(bytes: &[u8]) -> Option<Vote> {
    serde_json::from_slice(bytes).ok()
}

fn encode_base(base: &Base) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_i64(base.end_offset);
    put_json(&mut out, &(&base.applied, &base.membership));
    out
}

fn decode_base(mut bytes: &[u8]) -> Option<Base> {
    let end_offset = bytes.try_get_i64().ok()?;
    let (applied, membership) = serde_json::from_slice(bytes).ok()?;
    Some(Base {
        applied,
        membership,
        end_offset,
    })
}

/// Rare and small things are JSON: the types are openraft's, and so is their shape.
fn put_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("plain data has a JSON form");
}
