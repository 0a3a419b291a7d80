//! An answer becomes the bytes that go to the socket: size, header, body.
//!
//! Everything that is odd about response headers is here and only here:
//! - The answer to ApiVersions has header version 0 in all its versions, because the client may not
//!   know yet what the broker speaks.
//! - The answer to an ApiVersions request of a version we do not serve is written as version 0.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ResponseKind};

use crate::{
    fetch::FetchResponse,
    messages::{DeleteGroupsResponse, DescribeLogDirsResponse, TxnOffsetCommitResponse},
    request::Header,
    schema::{EncodeError, Field, Hole, Output},
    versions,
};

/// An answer with file ranges in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// All of the answer that is not in a file. Its size prefix counts the holes too.
    pub head: Bytes,
    /// What is in files, in the order in which it goes out.
    pub holes: Vec<Hole>,
}

impl Encoded {
    /// Bytes that go to the socket, those of the holes included.
    pub fn size(&self) -> usize {
        self.head.len() + self.holes.iter().map(|hole| hole.size).sum::<usize>()
    }
}

/// The bytes of an answer that has no file ranges.
///
/// Fails if the body has a value that the version cannot carry, or more than 2 GiB.
pub fn encode(header: &Header, body: &ResponseKind) -> Result<Bytes, EncodeError> {
    if let (ResponseKind::DeleteGroups(body), 3) = (body, header.version) {
        let mut out = start(header);
        DeleteGroupsResponse::from(body).write(&mut out, DeleteGroupsResponse::form(3))?;
        return finish(out).map(|encoded| encoded.head);
    }
    // What the codec writes into.
    let mut bytes = BytesMut::new();
    put_header(&mut bytes, header);
    body.encode(&mut bytes, body_version(header))
        .map_err(|err| {
            EncodeError::new(format!(
                "{:?} response v{}: {err}",
                header.api_key, header.version
            ))
        })?;
    set_size(&mut bytes, &[])?;
    Ok(bytes.freeze())
}

/// As [`encode`], for an answer to TxnOffsetCommit.
pub fn encode_txn_offset_commit(
    header: &Header,
    body: &TxnOffsetCommitResponse,
) -> Result<Bytes, EncodeError> {
    let mut out = start(header);
    body.write(&mut out, TxnOffsetCommitResponse::form(header.version))?;
    finish(out).map(|encoded| encoded.head)
}

/// As [`encode`], for an answer to DescribeLogDirs.
pub fn encode_log_dirs(
    header: &Header,
    body: &DescribeLogDirsResponse,
) -> Result<Bytes, EncodeError> {
    let mut out = start(header);
    body.write(&mut out, DescribeLogDirsResponse::form(header.version))?;
    finish(out).map(|encoded| encoded.head)
}

/// As [`encode`], for an answer to Fetch whose records are in files.
pub fn encode_fetch(header: &Header, body: &FetchResponse) -> Result<Encoded, EncodeError> {
    let mut out = start(header);
    body.write(&mut out, FetchResponse::form(header.version))?;
    finish(out)
}

const PREFIX_SIZE: usize = 4;

fn start(header: &Header) -> Output {
    let mut out = Output::default();
    put_header(&mut out.bytes, header);
    out
}

/// The size, which is not known yet, and the header.
fn put_header(out: &mut impl BufMut, header: &Header) {
    out.put_u32(0);
    out.put_i32(header.correlation_id);
    if header_version(header) >= 1 {
        out.put_u8(0); // no tagged fields
    }
}

fn finish(mut out: Output) -> Result<Encoded, EncodeError> {
    set_size(&mut out.bytes, &out.holes)?;
    Ok(Encoded {
        head: out.bytes.into(),
        holes: out.holes,
    })
}

fn set_size(bytes: &mut [u8], holes: &[Hole]) -> Result<(), EncodeError> {
    let size = bytes.len() - PREFIX_SIZE + holes.iter().map(|hole| hole.size).sum::<usize>();
    let size =
        i32::try_from(size).map_err(|_| EncodeError::new(format!("a response of {size} bytes")))?;
    bytes[..PREFIX_SIZE].copy_from_slice(&size.to_be_bytes());
    Ok(())
}

fn header_version(header: &Header) -> i16 {
    match header.api_key {
        ApiKey::ApiVersions => 0,
        key => key.response_header_version(header.version),
    }
}

fn body_version(header: &Header) -> i16 {
    let unserved =
        versions::served(header.api_key).is_none_or(|range| !range.contains(header.version));
    match header.api_key {
        ApiKey::ApiVersions if unserved => 0,
        key => versions::in_codec(key, header.version),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{ApiVersionsResponse, MetadataResponse, api_versions_response::ApiVersion},
        protocol::StrBytes,
    };

    use super::*;

    #[test]
    fn a_response_is_size_correlation_id_and_body() {
        let body = ResponseKind::Metadata(MetadataResponse::default());
        let bytes = encode(&header(ApiKey::Metadata, 0), &body).unwrap();
        assert_eq!(bytes, &b"\0\0\0\x0c\0\0\0\x07\0\0\0\0\0\0\0\0"[..]);
        let bytes = encode(&header(ApiKey::Metadata, 9), &body).unwrap();
        assert_eq!(bytes[8], 0, "the flexible header has tagged fields: none");
    }

    #[test]
    fn api_versions_never_has_the_flexible_header_nor_default_tagged_fields() {
        let body = ResponseKind::ApiVersions(ApiVersionsResponse::default());
        let bytes = encode(&header(ApiKey::ApiVersions, 3), &body).unwrap();
        // Error, no keys, throttle time, and no tagged fields: librdkafka 2.0 stumbles over those
        // that only say the default.
        assert_eq!(bytes, &b"\0\0\0\x0c\0\0\0\x07\0\0\x01\0\0\0\0\0"[..]);
    }

    #[test]
    fn an_api_versions_version_from_the_future_is_answered_in_version_0() {
        let keys = vec![ApiVersion::default().with_api_key(18).with_max_version(4)];
        let body = ApiVersionsResponse::default()
            .with_error_code(35)
            .with_api_keys(keys);
        let bytes = encode(&header(ApiKey::ApiVersions, 99), &body.into()).unwrap();
        assert_eq!(
            bytes,
            &b"\0\0\0\x10\0\0\0\x07\0\x23\0\0\0\x01\0\x12\0\0\0\x04"[..]
        );
    }

    #[test]
    fn a_body_that_does_not_fit_the_format_is_an_error() {
        let cluster_id = StrBytes::from_string("x".repeat(40_000));
        let body = MetadataResponse::default()
            .with_cluster_id(Some(cluster_id))
            .into();
        let refused = encode(&header(ApiKey::Metadata, 2), &body).unwrap_err();
        assert!(
            refused.to_string().starts_with("Metadata response v2: "),
            "{refused}"
        );
    }

    fn header(api_key: ApiKey, version: i16) -> Header {
        Header {
            api_key,
            version,
            correlation_id: 7,
            client_id: None,
        }
    }
}
