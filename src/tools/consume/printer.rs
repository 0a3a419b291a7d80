//! A record as a line, in the order and with the words of Kafka's formatters.

use protocol::{batch::TimestampType, records::group::GroupRecord};
use serde_json::json;

use super::{Options, deserializer::Deserializer, fetcher::Fetched};
use crate::{
    client::pairs,
    tools::{Failure, console::Console},
};

#[derive(Debug)]
pub(super) struct Printer {
    formatter: Formatter,
    timestamp: bool,
    partition: bool,
    offset: bool,
    delivery: bool,
    epoch: bool,
    headers: bool,
    key: bool,
    value: bool,
    key_separator: String,
    line_separator: String,
    headers_separator: String,
    null_literal: String,
    key_deserializer: Deserializer,
    value_deserializer: Deserializer,
    headers_deserializer: Deserializer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Formatter {
    Default,
    /// Reads and counts without printing.
    NoOp,
    /// The commits in `__consumer_offsets`.
    Offsets,
}

impl Printer {
    pub(super) fn new(options: &Options) -> Result<Printer, Failure> {
        let formatter = match options
            .formatter
            .as_deref()
            .map(|class| class.rsplit('.').next().unwrap_or(class))
        {
            None | Some("DefaultMessageFormatter" | "LoggingMessageFormatter") => {
                Formatter::Default
            }
            Some("NoOpMessageFormatter") => Formatter::NoOp,
            Some("OffsetsMessageFormatter") => Formatter::Offsets,
            Some(_) => {
                return Err(Failure::Refused(format!(
                    "--formatter {}: Java classes cannot be loaded here; Kafka's Default-, Logging-, NoOp- and \
                     OffsetsMessageFormatter are known",
                    options.formatter.as_deref().unwrap_or_default()
                )));
            }
        };
        let mut printer = Printer {
            formatter,
            timestamp: false,
            partition: false,
            offset: false,
            delivery: false,
            epoch: false,
            headers: false,
            key: false,
            value: true,
            key_separator: "\t".to_owned(),
            line_separator: "\n".to_owned(),
            headers_separator: ",".to_owned(),
            null_literal: "null".to_owned(),
            key_deserializer: Deserializer::Raw,
            value_deserializer: Deserializer::Raw,
            headers_deserializer: Deserializer::Raw,
        };
        if let Some(file) = &options.formatter_config {
            for (key, value) in pairs(file)? {
                printer.set(&key, &value)?;
            }
        }
        for property in &options.formatter_property {
            let (key, value) = property.split_once('=').unwrap_or((property, ""));
            printer.set(key, value)?;
        }
        for (key, class) in [
            ("key.deserializer", &options.key_deserializer),
            ("value.deserializer", &options.value_deserializer),
        ] {
            if let Some(class) = class {
                printer.set(key, class)?;
            }
        }
        Ok(printer)
    }

    /// Sets one property. Those it does not know are passed over, as Kafka does.
    fn set(&mut self, key: &str, value: &str) -> Result<(), Failure> {
        let flag = value.trim().eq_ignore_ascii_case("true");
        let class = |class: &str| Deserializer::named(class).map_err(Failure::Refused);
        match key {
            "print.timestamp" => self.timestamp = flag,
            "print.partition" => self.partition = flag,
            "print.offset" => self.offset = flag,
            "print.delivery" => self.delivery = flag,
            "print.epoch" => self.epoch = flag,
            "print.headers" => self.headers = flag,
            "print.key" => self.key = flag,
            "print.value" => self.value = flag,
            "key.separator" => self.key_separator = value.to_owned(),
            "line.separator" => self.line_separator = value.to_owned(),
            "headers.separator" => self.headers_separator = value.to_owned(),
            "null.literal" => self.null_literal = value.to_owned(),
            "key.deserializer" => self.key_deserializer = class(value)?,
            "value.deserializer" => self.value_deserializer = class(value)?,
            "headers.deserializer" | "header.deserializer" => {
                self.headers_deserializer = class(value)?
            }
            _ => (),
        }
        Ok(())
    }

    pub(super) fn print(&self, record: &Fetched, console: &mut Console) -> Result<(), Failure> {
        match self.formatter {
            Formatter::NoOp => Ok(()),
            Formatter::Offsets => match commit(record) {
                Some(line) => console.line(&line),
                None => Ok(()),
            },
            Formatter::Default => console.bytes(&self.line(record).map_err(Failure::Refused)?),
        }
    }

    fn line(&self, record: &Fetched) -> Result<Vec<u8>, String> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        if self.timestamp {
            let kind = match record.timestamp_type {
                TimestampType::CreateTime => "CreateTime",
                TimestampType::LogAppendTime => "LogAppendTime",
            };
            parts.push(match record.timestamp {
                -1 => b"NO_TIMESTAMP".to_vec(),
                time => format!("{kind}:{time}").into_bytes(),
            });
        }
        if self.partition {
            parts.push(format!("Partition:{}", record.partition.1).into_bytes());
        }
        if self.offset {
            parts.push(format!("Offset:{}", record.offset).into_bytes());
        }
        // Neither is known to a consumer that is in no share group; Kafka's tool says the same.
        if self.delivery {
            parts.push(b"Delivery:NOT_PRESENT".to_vec());
        }
        if self.epoch {
            parts.push(b"Epoch:NOT_PRESENT".to_vec());
        }
        if self.headers {
            parts.push(self.headers_text(record)?);
        }
        if self.key {
            parts.push(self.text(record.key.as_deref(), self.key_deserializer)?);
        }
        if self.value {
            parts.push(self.text(record.value.as_deref(), self.value_deserializer)?);
        }
        let mut line = parts.join(self.key_separator.as_bytes());
        line.extend_from_slice(self.line_separator.as_bytes());
        Ok(line)
    }

    fn headers_text(&self, record: &Fetched) -> Result<Vec<u8>, String> {
        if record.headers.is_empty() {
            return Ok(b"NO_HEADERS".to_vec());
        }
        let mut texts = Vec::new();
        for (key, value) in record.headers.iter() {
            let mut text = key.to_vec();
            text.push(b':');
            text.extend(self.text(value.as_deref(), self.headers_deserializer)?);
            texts.push(text);
        }
        Ok(texts.join(self.headers_separator.as_bytes()))
    }

    fn text(&self, bytes: Option<&[u8]>, deserializer: Deserializer) -> Result<Vec<u8>, String> {
        match bytes {
            None => Ok(self.null_literal.clone().into_bytes()),
            Some(bytes) => deserializer.text(bytes).map(|text| text.into_owned()),
        }
    }
}

/// A committed offset, or a deleted one, of `__consumer_offsets`. Other records there are passed over.
fn commit(record: &Fetched) -> Option<String> {
    let decoded = GroupRecord::decode(record.key.clone()?, record.value.clone()).ok()?;
    let GroupRecord::OffsetCommit { key, value } = decoded else {
        return None;
    };
    let text = |text: &str| json!(text);
    let version = record
        .value
        .as_ref()
        .and_then(|value| Some(i16::from_be_bytes(*value.first_chunk()?)));
    let value = match value {
        None => "null".to_owned(),
        Some(value) => {
            let mut fields = vec![format!("\"offset\":{}", value.offset)];
            if version.is_some_and(|version| 3 <= version) {
                fields.push(format!("\"leaderEpoch\":{}", value.leader_epoch));
            }
            fields.push(format!("\"metadata\":{}", text(&value.metadata)));
            fields.push(format!("\"commitTimestamp\":{}", value.commit_timestamp));
            if version == Some(4) {
                let id = storage::properties::encode_uuid(value.topic_id);
                fields.push(format!("\"topicId\":\"{id}\""));
            }
            let version = version.unwrap_or_default();
            format!(
                "{{\"version\":{version},\"data\":{{{}}}}}",
                fields.join(",")
            )
        }
    };
    Some(format!(
        "{{\"key\":{{\"type\":1,\"data\":{{\"group\":{},\"topic\":{},\"partition\":{}}}}},\"value\":{value}}}",
        text(&key.group),
        text(&key.topic),
        key.partition
    ))
}
