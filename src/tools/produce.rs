//! `sordini produce`: what `kafka-console-producer.sh` does: each line of standard input becomes a record.
//!
//! Lines are read by a thread of their own and gathered for as long as `--timeout` says or until a batch is full,
//! then written to the partitions' leaders, idempotently unless told otherwise.

mod lines;
mod partitioner;
mod writer;

use std::{
    io::{BufRead, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use lines::Format;
use protocol::compression::Compression;
use tokio::sync::mpsc;
use writer::{Acks, Writer};

use super::{Connection, Failure, console::Console, required};
use crate::client::{Settings, pairs};

/// Lines that have been read and not been taken yet.
const LINES_WAITING: usize = 1024;

/// How long Kafka's producer tries to deliver a batch.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// The topic to write to
    #[arg(long, value_name = "topic")]
    topic: Option<String>,
    /// How a line is read: parse.key, key.separator, parse.headers, headers.delimiter, headers.separator,
    /// headers.key.separator, null.marker, ignore.error; may be repeated
    #[arg(long = "reader-property", alias = "property", value_name = "key=value")]
    reader_property: Vec<String>,
    /// The same from a file
    #[arg(long, value_name = "file")]
    reader_config: Option<PathBuf>,
    /// Only Kafka's own reader of lines is here
    #[arg(long, value_name = "class", hide = true)]
    line_reader: Option<String>,
    /// Producer properties: acks, compression.type, linger.ms, batch.size, enable.idempotence...; may be repeated
    #[arg(
        long = "command-property",
        alias = "producer-property",
        value_name = "key=value"
    )]
    command_property: Vec<String>,
    /// The same from a file
    #[arg(long = "producer.config", value_name = "file", hide = true)]
    producer_config: Option<PathBuf>,
    /// Compress: none, gzip, snappy, lz4 or zstd; without a name, gzip
    #[arg(long, value_name = "codec", num_args = 0..=1, default_missing_value = "gzip")]
    compression_codec: Option<String>,
    /// Send each line for itself and wait for its answer
    #[arg(long)]
    sync: bool,
    /// How many bytes a batch gathers
    #[arg(long, value_name = "bytes", alias = "max-partition-memory-bytes")]
    batch_size: Option<usize>,
    /// How long lines are gathered
    #[arg(long, value_name = "ms")]
    timeout: Option<u64>,
    /// Who must have a record before it counts as written: 0, 1, all
    #[arg(long, value_name = "acks", allow_negative_numbers = true)]
    request_required_acks: Option<String>,
    /// How long one request may take
    #[arg(long, value_name = "ms")]
    request_timeout_ms: Option<u64>,
    /// How long to wait for the topic
    #[arg(long, value_name = "ms", default_value_t = 60_000)]
    max_block_ms: u64,
    /// How often a batch is sent again
    #[arg(long, value_name = "count")]
    message_send_max_retries: Option<u32>,
    /// Taken and without effect
    #[arg(long, value_name = "bytes", hide = true)]
    max_memory_bytes: Option<u64>,
    #[arg(long, value_name = "ms", hide = true)]
    metadata_expiry_ms: Option<u64>,
    #[arg(long, value_name = "ms", hide = true)]
    retry_backoff_ms: Option<u64>,
    #[arg(long, value_name = "bytes", hide = true)]
    socket_buffer_size: Option<u64>,
}

/// How records are sent.
#[derive(Debug, Clone)]
struct Sending {
    acks: Acks,
    idempotent: bool,
    compression: Compression,
    batch_bytes: usize,
    linger: Duration,
    /// How often a batch is sent again that a leader has refused or may have got. Not counted is what did not leave: a broker
    /// that restarts is waited for, as long as `delivery_timeout` says.
    retries: u32,
    max_block: Duration,
    delivery_timeout: Duration,
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    required(
        options.connection.bootstrap_server.as_deref(),
        "bootstrap-server",
    )?;
    let topic = required(options.topic.as_deref(), "topic")?.to_owned();
    if let Some(class) = options.line_reader.as_deref()
        && !class.ends_with("LineMessageReader")
    {
        return Err(Failure::Refused(format!(
            "--line-reader {class}: Java classes cannot be loaded here; lines are read as Kafka's LineMessageReader does"
        )));
    }
    let format = format(&options)?;
    let mut settings = options.connection.settings("sordini-produce")?;
    let sending = sending(&options, &mut settings)?;
    let servers = required(
        options.connection.bootstrap_server.as_deref(),
        "bootstrap-server",
    )?;
    let client = super::connect(servers, settings, console).await?;
    let mut writer = Writer::new(client, topic, sending.clone());

    let mut lines = read_lines();
    let mut number = 0;
    let mut next: Option<std::io::Result<Vec<u8>>> = None;
    loop {
        let line = match next.take() {
            Some(line) => line,
            None => match lines.recv().await {
                Some(line) => line,
                None => break,
            },
        };
        number += 1;
        let line =
            line.map_err(|err| Failure::Refused(format!("cannot read standard input: {err}")))?;
        let record = match format.parse(&line, number) {
            Ok(record) => record,
            Err(wrong) => {
                writer.flush(console).await?;
                return Err(Failure::Refused(wrong));
            }
        };
        writer.add(record, console).await?;
        if options.sync || sending.linger.is_zero() && lines.is_empty() {
            writer.flush(console).await?;
            continue;
        }
        match tokio::time::timeout_at(writer.due(), lines.recv()).await {
            Ok(Some(line)) => next = Some(line),
            Ok(None) => break,
            Err(_) => writer.flush(console).await?,
        }
    }
    writer.flush(console).await?;
    match writer.lost() {
        0 => Ok(()),
        // Kafka's tool ends well all the same; a script had better know.
        _ => Err(Failure::Said(1)),
    }
}

/// Reads lines until the end of standard input, asking for them if a person types.
fn read_lines() -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(LINES_WAITING);
    std::thread::spawn(move || {
        let stdin = std::io::stdin();
        let is_person = stdin.is_terminal();
        let mut input = stdin.lock();
        loop {
            if is_person {
                // A prompt that cannot be shown is missed by nobody.
                let _ = std::io::stdout()
                    .write_all(b">")
                    .and_then(|()| std::io::stdout().flush());
            }
            let mut line = Vec::new();
            let read = match input.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    if line.last() == Some(&b'\n') {
                        line.pop();
                        if line.last() == Some(&b'\r') {
                            line.pop();
                        }
                    }
                    Ok(line)
                }
                Err(err) => Err(err),
            };
            let failed = read.is_err();
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

fn format(options: &Options) -> Result<Format, Failure> {
    let mut format = Format::default();
    if let Some(file) = &options.reader_config {
        for (key, value) in pairs(file)? {
            format.set(&key, &value).map_err(Failure::Refused)?;
        }
    }
    for property in &options.reader_property {
        // A property without a value has the empty one, as in Kafka's tool.
        let (key, value) = property.split_once('=').unwrap_or((property, ""));
        format.set(key, value).map_err(Failure::Refused)?;
    }
    format.check().map_err(Failure::Refused)?;
    Ok(format)
}

fn sending(options: &Options, settings: &mut Settings) -> Result<Sending, Failure> {
    let mut sending = Sending {
        acks: Acks::All,
        idempotent: true,
        compression: Compression::None,
        batch_bytes: 16_384,
        linger: Duration::from_millis(1000),
        retries: 3,
        max_block: Duration::from_millis(options.max_block_ms),
        delivery_timeout: DELIVERY_TIMEOUT,
    };
    let mut properties = Vec::new();
    for file in [&options.producer_config, &options.connection.command_config]
        .into_iter()
        .flatten()
    {
        properties.extend(pairs(file)?);
    }
    for property in &options.command_property {
        let (key, value) = property.split_once('=').unwrap_or((property, ""));
        properties.push((key.to_owned(), value.to_owned()));
    }
    // The options have names of their own for some properties; they count for less, as with Kafka's tool.
    let ms = |value: Option<u64>| value.map(|ms| ms.to_string());
    let named = [
        ("compression.type", options.compression_codec.clone()),
        (
            "batch.size",
            options.batch_size.map(|bytes| bytes.to_string()),
        ),
        ("linger.ms", ms(options.timeout)),
        ("acks", options.request_required_acks.clone()),
        ("request.timeout.ms", ms(options.request_timeout_ms)),
        (
            "retries",
            options
                .message_send_max_retries
                .map(|count| count.to_string()),
        ),
    ];
    let named = named
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let mut idempotence_asked = false;
    let mut delivery_asked = false;
    for (key, value) in named.chain(properties) {
        idempotence_asked |= key == "enable.idempotence";
        delivery_asked |= key == "delivery.timeout.ms";
        sending.set(&key, &value, settings)?;
    }
    let least = sending.linger + settings.request_timeout;
    if sending.delivery_timeout < least {
        if delivery_asked {
            return Err(Failure::Refused(
                "delivery.timeout.ms should be equal to or larger than linger.ms + request.timeout.ms"
                    .to_owned(),
            ));
        }
        sending.delivery_timeout = least;
    }
    if sending.acks != Acks::All {
        if idempotence_asked && sending.idempotent {
            return Err(Failure::Refused(
                "Must set acks to all in order to use the idempotent producer. Otherwise we cannot guarantee idempotence."
                    .to_owned(),
            ));
        }
        sending.idempotent = false;
    }
    Ok(sending)
}

impl Sending {
    fn set(&mut self, key: &str, value: &str, settings: &mut Settings) -> Result<(), Failure> {
        let wrong = |why: &str| {
            Failure::Refused(format!(
                "Invalid value {value} for configuration {key}: {why}"
            ))
        };
        let number = || {
            value
                .trim()
                .parse::<u32>()
                .map_err(|_| wrong("Not a number of type INT"))
        };
        match key {
            "acks" => {
                self.acks = match value {
                    "all" | "-1" => Acks::All,
                    "0" => Acks::None,
                    "1" => Acks::Leader,
                    _ => return Err(wrong("String must be one of: all, -1, 0, 1")),
                }
            }
            "compression.type" => {
                self.compression = match value {
                    "none" => Compression::None,
                    "gzip" => Compression::Gzip,
                    "snappy" => Compression::Snappy,
                    "lz4" => Compression::Lz4,
                    "zstd" => Compression::Zstd,
                    _ => {
                        return Err(wrong(
                            "String must be one of: none, gzip, snappy, lz4, zstd",
                        ));
                    }
                }
            }
            "enable.idempotence" => self.idempotent = value == "true",
            "batch.size" => self.batch_bytes = number()? as usize,
            "linger.ms" => self.linger = Duration::from_millis(number()?.into()),
            "retries" => self.retries = number()?,
            "delivery.timeout.ms" => {
                self.delivery_timeout = Duration::from_millis(number()?.into())
            }
            "max.block.ms" => self.max_block = Duration::from_millis(number()?.into()),
            "transactional.id" => return Err(wrong("this tool writes without transactions")),
            _ => settings.set(key, value)?,
        }
        Ok(())
    }
}
