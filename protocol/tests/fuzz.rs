//! The fuzz bodies, each on a bounded number of inputs that come closer than chance would.

use proptest::{collection::vec, prelude::*, sample::select};
use sordini_protocol::{batch::Builder, compression::Compression, versions::SERVED};

#[path = "../fuzz/bodies.rs"]
mod bodies;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn frames(data in vec(telling_byte(), 0..200)) {
        bodies::frame(&data);
    }

    #[test]
    fn requests(data in request()) {
        bodies::request(&data);
    }

    #[test]
    fn any_bytes_as_requests(data in vec(any::<u8>(), 0..100)) {
        bodies::request(&data);
    }

    #[test]
    fn batches_with_a_few_bytes_changed(data in batch()) {
        bodies::batch(&data);
    }

    #[test]
    fn any_bytes_as_batches(data in vec(telling_byte(), 0..200)) {
        bodies::batch(&data);
    }

    #[test]
    fn metadata_records(mut data in vec(telling_byte(), 0..100), key in 0..30u8, version in 0..5u8) {
        let head = [1, key, version];
        data.splice(..0, head);
        bodies::record(&data);
    }

    #[test]
    fn any_bytes_as_records(data in vec(telling_byte(), 0..100)) {
        bodies::record(&data);
    }
}

/// Bytes that say something as sizes, counts and flags, more often than others.
fn telling_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        6 => Just(0),
        4 => 1..5u8,
        1 => select(&[0x7f, 0x80, 0xfe, 0xff][..]),
        1 => any::<u8>(),
    ]
}

/// A good header in front of a body that is good by chance.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let versions: Vec<(i16, i16)> = SERVED
        .iter()
        .flat_map(|(key, range)| (range.min..=range.max).map(|version| (*key as i16, version)))
        .collect();
    (select(versions), vec(telling_byte(), 0..100)).prop_map(|((key, version), body)| {
        let mut frame = Vec::new();
        frame.extend_from_slice(&key.to_be_bytes());
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 7, 0xff, 0xff]);
        frame.extend_from_slice(&body);
        frame
    })
}

/// A batch as clients send it, some of its bytes replaced.
fn batch() -> impl Strategy<Value = Vec<u8>> {
    let record = (0..100i64, any::<bool>(), vec(any::<u8>(), 0..20));
    let codec = select(&Compression::ALL[..]);
    (
        codec,
        vec(record, 0..20),
        vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    )
        .prop_map(|(codec, records, changes)| {
            let mut builder = Builder::new().compression(codec, None);
            for (timestamp, header, value) in &records {
                let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"v"))];
                let headers = if *header { headers } else { &[] };
                builder.push(*timestamp, Some(b"key"), Some(value), headers);
            }
            let mut bytes = builder
                .build()
                .map_or_else(Vec::new, |batch| batch.bytes().to_vec());
            for (at, byte) in changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            bytes
        })
}
