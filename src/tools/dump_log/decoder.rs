//! What keys and values of records mean.

use bytes::Bytes;
use protocol::{
    error::DecodeError,
    json::Json,
    record::Record,
    records::{
        group::{self, GroupRecord},
        metadata::MetadataRecord,
        transaction::TransactionRecord,
    },
};

use crate::tools::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoder {
    Text,
    /// Those of `__consumer_offsets`.
    Offsets,
    /// Those of `__transaction_state`.
    Transactions,
    /// Those of `__cluster_metadata`.
    Metadata,
}

/// Key and value as they are shown.
type Shown = (Option<String>, Option<String>);

impl Decoder {
    pub(super) fn parse(self, record: &Record) -> Result<Shown, Failure> {
        match self {
            Self::Text => Ok((text(record.key.as_ref()), text(record.value.as_ref()))),
            Self::Offsets => coordinator(record, offsets),
            Self::Transactions => coordinator(record, transactions),
            Self::Metadata => Ok((None, Some(metadata(record)))),
        }
    }
}

fn text(bytes: Option<&Bytes>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// A record of a coordinator: the number of its type, its key, and its value if there is one.
struct Parts {
    number: i16,
    key: Json,
    value: Option<Json>,
}

/// `Err` has the number of a type that is not known.
type Decoded = Result<Result<Parts, i16>, DecodeError>;

fn coordinator(
    record: &Record,
    decode: impl Fn(Bytes, Option<Bytes>, i16) -> Decoded,
) -> Result<Shown, Failure> {
    let offset = record.offset;
    let Some(key) = record.key.clone() else {
        return Err(Failure::Refused(format!(
            "Failed to decode message at offset {offset} using the specified decoder (message had a missing key)"
        )));
    };
    let value = record.value.clone();
    let version = value.as_deref().and_then(|value| value.first_chunk());
    let version = version.map_or(0, |version| i16::from_be_bytes(*version));
    Ok(match decode(key, value, version) {
        Ok(Ok(parts)) => {
            let key = Json::object([
                ("type", Json::text(parts.number.to_string())),
                ("data", parts.key),
            ]);
            let value = parts.value.map(|value| {
                Json::object([
                    ("version", Json::text(version.to_string())),
                    ("data", value),
                ])
                .to_string()
            });
            (
                Some(key.to_string()),
                Some(value.unwrap_or_else(|| "<DELETE>".to_owned())),
            )
        }
        Ok(Err(number)) => {
            let text = format!("Unknown record type {number} at offset {offset}, skipping.");
            (Some(text), None)
        }
        Err(err) => (
            Some(format!("Error at offset {offset}, skipping. {err}")),
            None,
        ),
    })
}

fn offsets(key: Bytes, value: Option<Bytes>, version: i16) -> Decoded {
    let record = GroupRecord::decode(key, value)?;
    if let GroupRecord::Unknown(number) = record {
        return Ok(Err(number));
    }
    let mut value = record.value_json(version);
    if let (
        GroupRecord::GroupMetadata {
            value: Some(group), ..
        },
        Some(shown),
    ) = (&record, &mut value)
    {
        group::explain_members(group, shown);
    }
    Ok(Ok(Parts {
        number: record.number(),
        key: record.key_json(),
        value,
    }))
}

fn transactions(key: Bytes, value: Option<Bytes>, version: i16) -> Decoded {
    let record = TransactionRecord::decode(key, value)?;
    Ok(match record {
        TransactionRecord::Unknown(number) => Err(number),
        record => Ok(Parts {
            number: record.number(),
            key: record.key_json(),
            value: record.value_json(version),
        }),
    })
}

fn metadata(record: &Record) -> String {
    let value = record.value.clone().unwrap_or_default();
    match MetadataRecord::decode_with_version(value) {
        Ok((decoded, version)) => Json::object([
            ("type", Json::Text(constant(decoded.name()))),
            ("version", Json::from(version)),
            ("data", decoded.json(version)),
        ])
        .to_string(),
        Err(err) => format!("Error at {}, skipping. {err}", record.offset),
    }
}

/// `TopicRecord` to `TOPIC_RECORD`.
fn constant(name: &str) -> String {
    let mut constant = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !constant.is_empty() {
            constant.push('_');
        }
        constant.push(c.to_ascii_uppercase());
    }
    constant
}
