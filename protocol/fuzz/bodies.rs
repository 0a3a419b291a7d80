//! What must hold for any bytes whatever. Run by cargo-fuzz (`targets/`) and, bounded, by
//! `tests/fuzz.rs`.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind};
use sordini_protocol::{
    batch::{Batch, HEADER_SIZE, Header},
    compression::Compression,
    fetch::FetchResponse,
    frame,
    records::{
        control::ControlRecord, group::GroupRecord, metadata::MetadataRecord,
        transaction::TransactionRecord,
    },
    request::{self, Body},
    validate::{self, Refusal, Rules},
    versions,
};

/// Frames are the same however the stream is cut, none is larger than allowed, and what is still
/// wanted is never nothing.
pub(crate) fn frame(data: &[u8]) {
    let Some((&piece, stream)) = data.split_first() else {
        return;
    };
    let max = 1000;
    let whole = frames(&mut [stream].into_iter(), max);
    let cut = frames(&mut stream.chunks(usize::from(piece) + 1), max);
    assert_eq!(whole, cut);
}

fn frames(pieces: &mut dyn Iterator<Item = &[u8]>, max: usize) -> (Vec<Bytes>, bool) {
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match frame::next(&mut buffer, max) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= max);
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(refused) => {
                    assert!(refused.size > max);
                    return (frames, false);
                }
            }
        }
        assert!(frame::wanted(&buffer) > 0);
    }
    (frames, true)
}

/// A frame is refused or is a request of a version we serve, which encodes to bytes that are the
/// same request again.
pub(crate) fn request(data: &[u8]) {
    let Ok(request) = request::decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    let (key, version) = (request.header.api_key, request.header.version);
    let served = versions::served(key).expect("what is not served is not decoded");
    if !served.contains(version) {
        assert_eq!(key, ApiKey::ApiVersions);
        return;
    }
    if key.valid_versions().max < version {
        // Read by a table of our own, of which there is nothing to compare with.
        return;
    }
    let mut body = BytesMut::new();
    let Body::Codec(decoded) = request.body else {
        return;
    };
    let version = versions::in_codec(key, version);
    // Null where a later version may have it decodes, but does not encode.
    if decoded.encode(&mut body, version).is_ok() {
        let again = RequestKind::decode(key, &mut body.freeze(), version)
            .expect("what was encoded decodes");
        assert_eq!(again, decoded);
    }
}

/// Bytes are refused or are a batch; what may be appended can be read back, and shows the walk and
/// the reader to be of one mind.
pub(crate) fn batch(data: &[u8]) {
    checked(Bytes::copy_from_slice(data));
    // Few bytes have the right length and CRC by chance.
    if data.len() >= HEADER_SIZE {
        let mut mended = data.to_vec();
        let length = i32::try_from(data.len() - 12).expect("fuzzers send less than 2 GiB");
        mended[8..12].copy_from_slice(&length.to_be_bytes());
        mended[16] = 2;
        let crc = crc32c::crc32c(&mended[21..]);
        mended[17..21].copy_from_slice(&crc.to_be_bytes());
        checked(mended.into());
    }
}

fn checked(bytes: Bytes) {
    let header = Header::parse(&bytes);
    let split = Batch::split(bytes.clone());
    let Ok(batch) = Batch::parse(bytes.clone()) else {
        return;
    };
    assert_eq!(header.as_ref(), Ok(batch.header()));
    assert_eq!(split.as_deref(), Ok(&[batch.clone()][..]));
    assert_eq!(batch.header().encode()[..], bytes[..HEADER_SIZE]);
    assert!(batch.header().next_offset() > batch.header().base_offset);

    let limit = 100_000;
    let read = batch
        .records(limit)
        .and_then(|records| records.collect::<Result<Vec<_>, _>>());
    if let Ok(records) = &read {
        assert_eq!(
            records.len(),
            usize::try_from(batch.header().record_count).unwrap()
        );
        for record in records {
            assert_eq!(record.headers.iter().count(), record.headers.len());
        }
    }

    let rules = Rules {
        keyed: true,
        timestamps: Some(0..=i64::MAX),
        decompressed_max: limit,
    };
    match validate::client_batch(&batch, &rules) {
        Ok(summary) => {
            let records = read.expect("a batch that may be appended can be read");
            let deltas = records.iter().map(|record| record.offset_delta);
            assert!(deltas.eq(0..batch.header().record_count));
            assert!(records.iter().all(|record| record.key.is_some()));
            let latest = records.iter().map(|record| record.timestamp).max();
            assert_eq!(
                latest.map(|latest| latest.max(-1)),
                Some(summary.max_timestamp)
            );
            let kept = batch.with_create_time(summary.max_timestamp);
            assert_eq!(Batch::parse(kept.bytes().clone()).as_ref(), Ok(&kept));
        }
        // An uncompressed batch has no limit on what it holds.
        Err(Refusal::Malformed(_)) if batch.header().compression() != Compression::None => {
            assert!(read.is_err(), "the reader takes what the walk refuses");
        }
        Err(Refusal::Malformed(_)) => assert!(read.is_err()),
        Err(_) => (),
    }
}

/// Records of Kafka's own logs and answers of its brokers are refused or understood; the former
/// are the same again when written and read.
pub(crate) fn record(data: &[u8]) {
    if let Ok(record) = MetadataRecord::decode(Bytes::copy_from_slice(data)) {
        let again = MetadataRecord::decode(record.encode()).expect("what was encoded decodes");
        // By their text: a quota may be NaN.
        assert_eq!(format!("{again:?}"), format!("{record:?}"));
    }
    if let Some((key, value)) = data.split_at_checked(4)
        && let Ok(record) =
            ControlRecord::decode(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
    {
        let (key, value) = record.encode();
        assert_eq!(ControlRecord::decode(key, value), Ok(record));
    }
    if let Some((&size, rest)) = data.split_first()
        && let Some((key, value)) = rest.split_at_checked(usize::from(size))
        && let Some(version) = value.first_chunk()
    {
        let (key, version) = (Bytes::copy_from_slice(key), i16::from_be_bytes(*version));
        let value = Some(Bytes::copy_from_slice(value));
        if let Ok(record) = GroupRecord::decode(key.clone(), value.clone())
            && let Ok((key, value)) = record.encoded(version)
        {
            assert_eq!(GroupRecord::decode(key, value), Ok(record));
        }
        if let Ok(record) = TransactionRecord::decode(key, value)
            && let Ok((key, value)) = record.encoded(version)
        {
            assert_eq!(TransactionRecord::decode(key, value), Ok(record));
        }
    }
    if let Some((&version, body)) = data.split_first() {
        let _ = FetchResponse::decode(Bytes::copy_from_slice(body), i16::from(version % 20));
    }
}
