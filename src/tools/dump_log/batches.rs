//! The batches of a log, or of a snapshot of the metadata, and the records in them.

use std::{fs, os::unix::fs::FileExt, path::Path};

use bytes::{Bytes, BytesMut};
use protocol::{
    batch::{Batch, BatchError, Header, sequence_after},
    record::Record,
    records::control::ControlRecord,
};

use super::{Options, Problems, absolute, base_offset, optional, unreadable};
use crate::tools::{Failure, console::Console};

/// Offset, length, leader epoch or CRC, and magic: as much of a batch as all formats have in common.
const PREFIX_SIZE: usize = 17;

/// What the length of a batch does not count.
const LENGTH_END: u64 = 12;

/// The least that the length of a batch of any format can be.
const LENGTH_MIN: i32 = 14;

/// What the records of one batch may take when decompressed.
const DECOMPRESSED_MAX: usize = 1 << 30;

const MAGIC: u8 = 2;

/// The batches of a file, or of a part of it, one after the other.
pub(super) struct Batches<'a> {
    path: &'a Path,
    file: fs::File,
    position: u64,
    end: u64,
}

/// A batch, which may be damaged, and where it begins.
pub(super) struct Found {
    pub(super) position: u64,
    pub(super) header: Header,
    bytes: Bytes,
}

impl<'a> Batches<'a> {
    pub(super) fn open(path: &'a Path, from: u64, size_max: u64) -> Result<Self, Failure> {
        let opened = fs::File::open(path).and_then(|file| {
            let size = file.metadata()?.len();
            Ok((file, size))
        });
        let (file, size) = opened.map_err(|err| unreadable(path, &err))?;
        Ok(Self {
            path,
            file,
            position: from,
            end: size.min(from.saturating_add(size_max)),
        })
    }

    /// `None` at the end, before which there may be the beginning of another.
    pub(super) fn next(&mut self) -> Result<Option<Found>, Failure> {
        let position = self.position;
        if self.end.saturating_sub(PREFIX_SIZE as u64) <= position {
            return Ok(None);
        }
        let mut prefix = [0; PREFIX_SIZE];
        self.read(&mut prefix, position)?;
        let [_, _, _, _, _, _, _, _, a, b, c, d, .., magic] = prefix;
        let length = i32::from_be_bytes([a, b, c, d]);
        if length < LENGTH_MIN {
            return Err(Failure::Refused(format!(
                "Found record size {length} smaller than minimum record overhead ({LENGTH_MIN}) in file {}.",
                self.path.display()
            )));
        }
        let size = LENGTH_END + u64::from(length.unsigned_abs());
        if self.end - position < size {
            return Ok(None);
        }
        let damaged = |why: String| {
            let path = self.path.display();
            Failure::Refused(format!("At position {position} of {path}: {why}"))
        };
        if magic < MAGIC {
            return Err(damaged(format!(
                "a message of format {magic}, which is not read here"
            )));
        }
        let mut bytes =
            BytesMut::zeroed(usize::try_from(size).map_err(|err| damaged(err.to_string()))?);
        self.read(&mut bytes, position)?;
        let header = Header::parse(&bytes).map_err(|err| damaged(err.to_string()))?;
        self.position += size;
        Ok(Some(Found {
            position,
            header,
            bytes: bytes.freeze(),
        }))
    }

    fn read(&self, buffer: &mut [u8], position: u64) -> Result<(), Failure> {
        let read = self.file.read_exact_at(buffer, position);
        read.map_err(|err| unreadable(self.path, &err))
    }

    /// What is left behind the last batch.
    fn rest(&self) -> u64 {
        self.end - self.position
    }
}

impl Found {
    /// The batch as far as it can be read, and whether it is as it was written.
    fn batch(&self) -> Result<(Batch, bool), BatchError> {
        match Batch::parse(self.bytes.clone()) {
            Err(BatchError::Crc { computed, .. }) => {
                let mut bytes = BytesMut::from(&self.bytes[..]);
                bytes[17..21].copy_from_slice(&computed.to_be_bytes());
                Ok((Batch::parse(bytes.freeze())?, false))
            }
            parsed => Ok((parsed?, true)),
        }
    }

    pub(super) fn records(&self) -> Result<Vec<Record>, BatchError> {
        let (batch, _) = self.batch()?;
        batch.records(DECOMPRESSED_MAX)?.collect()
    }
}

pub(super) fn dump(
    path: &Path,
    options: &Options,
    problems: &mut Problems,
    console: &mut Console,
) -> Result<(), Failure> {
    console.line(&title(path)?)?;
    let size_max = u64::from(options.max_bytes.unsigned_abs());
    let mut batches = Batches::open(path, 0, size_max)?;
    let mut last_offset = -1;
    while let Some(found) = batches.next()? {
        let damaged = |err: BatchError| {
            let position = found.position;
            Failure::Refused(format!(
                "At position {position} of {}: {err}",
                path.display()
            ))
        };
        let (batch, is_valid) = found.batch().map_err(damaged)?;
        console.line(&shown(&found, is_valid))?;
        if !options.is_deep() {
            continue;
        }
        for record in batch.records(DECOMPRESSED_MAX).map_err(damaged)? {
            let record = record.map_err(damaged)?;
            if record.offset != last_offset + 1 {
                let gaps = problems.gaps.entry(absolute(path)).or_default();
                gaps.insert(last_offset, record.offset);
            }
            last_offset = record.offset;
            console.bytes(&line(&found.header, &record, options)?)?;
        }
    }
    let rest = batches.rest();
    if rest > 0 && options.max_bytes == i32::MAX {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        console.line(&format!("Found {rest} invalid bytes at the end of {name}"))?;
    }
    Ok(())
}

fn title(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(id) = name.strip_suffix(".checkpoint") else {
        return Ok(format!("Log starting offset: {}", base_offset(path)?));
    };
    if id == "bootstrap" {
        return Ok("KRaft bootstrap snapshot".to_owned());
    }
    let number = |text: &str| text.parse::<i64>().ok();
    let id = id
        .split_once('-')
        .and_then(|(offset, epoch)| Some((number(offset)?, number(epoch)?)));
    match id {
        Some((offset, epoch)) => Ok(format!("Snapshot end offset: {offset}, epoch: {epoch}")),
        None => Err(Failure::Refused(format!(
            "{} is not named after an offset and an epoch",
            path.display()
        ))),
    }
}

fn shown(found: &Found, is_valid: bool) -> String {
    let header = &found.header;
    format!(
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} producerEpoch: {} \
         partitionLeaderEpoch: {} isTransactional: {} isControl: {} deleteHorizonMs: {} position: {} {:?}: {} size: {} \
         magic: {} compresscodec: {} crc: {} isvalid: {is_valid}",
        header.base_offset,
        header.last_offset(),
        header.record_count,
        header.base_sequence,
        header.last_sequence(),
        header.producer_id,
        header.producer_epoch,
        header.leader_epoch,
        header.is_transactional(),
        header.is_control(),
        optional(header.delete_horizon()),
        found.position,
        header.timestamp_type(),
        header.max_timestamp,
        header.size,
        header.magic,
        header.compression(),
        header.crc,
    )
}

/// A record's line, with its end. What it holds is shown as it is.
fn line(header: &Header, record: &Record, options: &Options) -> Result<Vec<u8>, Failure> {
    let mut line = Vec::new();
    if !options.skip_record_metadata {
        line.extend(metadata(header, record)?.into_bytes());
    }
    if options.prints_data() && !header.is_control() {
        let mut prefix = if options.skip_record_metadata {
            "| "
        } else {
            " "
        };
        let (key, value) = options.decoder().parse(record)?;
        for (name, text) in [("key: ", key), ("payload: ", value)] {
            if let Some(text) = text {
                line.extend([prefix, name, &text].concat().into_bytes());
                prefix = " ";
            }
        }
    }
    line.push(b'\n');
    Ok(line)
}

fn metadata(header: &Header, record: &Record) -> Result<String, Failure> {
    let size = |bytes: &Option<Bytes>| match bytes {
        Some(bytes) => bytes.len().to_string(),
        None => "-1".to_owned(),
    };
    let sequence = match header.base_sequence {
        base @ 0.. => sequence_after(base, record.offset_delta),
        none => none,
    };
    let names = record.headers.iter();
    let names: Vec<String> = names
        .map(|(name, _)| String::from_utf8_lossy(&name).into_owned())
        .collect();
    let control = match header.is_control() {
        true => control(record)?,
        false => String::new(),
    };
    Ok(format!(
        "| offset: {} {:?}: {} keySize: {} valueSize: {} sequence: {sequence} headerKeys: [{}]{control}",
        record.offset,
        header.timestamp_type(),
        record.timestamp,
        size(&record.key),
        size(&record.value),
        names.join(","),
    ))
}

/// What a broker or a controller has noted down about the log.
fn control(record: &Record) -> Result<String, Failure> {
    let key = record.key.clone().unwrap_or_default();
    let value = record.value.clone().unwrap_or_default();
    let control = ControlRecord::decode(key, value);
    let control =
        control.map_err(|err| Failure::Refused(format!("At offset {}: {err}", record.offset)))?;
    Ok(match &control {
        ControlRecord::Abort(marker) => {
            format!(
                " endTxnMarker: ABORT coordinatorEpoch: {}",
                marker.coordinator_epoch
            )
        }
        ControlRecord::Commit(marker) => {
            format!(
                " endTxnMarker: COMMIT coordinatorEpoch: {}",
                marker.coordinator_epoch
            )
        }
        ControlRecord::LeaderChange(_) => format!(" LeaderChange: {}", control.json()),
        ControlRecord::SnapshotHeader(_) => format!(" SnapshotHeader {}", control.json()),
        ControlRecord::SnapshotFooter(_) => format!(" SnapshotFooter {}", control.json()),
        ControlRecord::KRaftVersion(_) => format!(" KRaftVersion {}", control.json()),
        ControlRecord::Voters(_) => format!(" KRaftVoters {}", control.json()),
        ControlRecord::Unknown(number) => format!(" controlType: UNKNOWN({number})"),
    })
}
