//! Kafka's command line tools, as subcommands: the same flags, the same tables, the same sentences.
//!
//! Each tool has its file. A tool asks through [`crate::client`] and says what it found through [`Console`]; what
//! went wrong it returns as a [`Failure`], which is put into words here, in the manner of Kafka's tool of that name,
//! so that a script which looks for Kafka's words finds them.
//!
//! What differs from Kafka's tools: lists are sorted where theirs are in the order of a hash table, no stack traces,
//! one line about what is wrong instead of the whole help text.

mod api_versions;
mod cluster;
mod configs;
mod console;
mod consume;
mod delete_records;
mod dump_log;
mod features;
mod get_offsets;
mod groups;
mod leader_election;
mod log_dirs;
mod produce;
mod quorum;
mod storage;
mod table;
mod topic_filter;
mod topics;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use console::Console;

use crate::client::{self, Client, Settings};

#[derive(Debug, Subcommand)]
pub(crate) enum Tool {
    /// Create, list, describe, change and delete topics (kafka-topics.sh)
    Topics(topics::Options),
    /// List, describe, reset and delete consumer groups (kafka-consumer-groups.sh)
    Groups(groups::Options),
    /// Describe and change configurations (kafka-configs.sh)
    Configs(configs::Options),
    /// Write records from standard input (kafka-console-producer.sh)
    Produce(produce::Options),
    /// Print records (kafka-console-consumer.sh)
    Consume(consume::Options),
    /// The cluster's id and brokers (kafka-cluster.sh)
    Cluster(cluster::Options),
    /// Which requests each broker serves (kafka-broker-api-versions.sh)
    ApiVersions(api_versions::Options),
    /// Offsets by time, earliest, latest (kafka-get-offsets.sh)
    GetOffsets(get_offsets::Options),
    /// Delete records up to an offset (kafka-delete-records.sh)
    DeleteRecords(delete_records::Options),
    /// What is in the brokers' log directories (kafka-log-dirs.sh)
    LogDirs(log_dirs::Options),
    /// Elect partitions' leaders (kafka-leader-election.sh)
    LeaderElection(leader_election::Options),
    /// The controllers' quorum (kafka-metadata-quorum.sh)
    MetadataQuorum(quorum::Options),
    /// The features and levels of the cluster (kafka-features.sh)
    Features(features::Options),
    /// What is in the files of a log (kafka-dump-log.sh)
    DumpLog(dump_log::Options),
    /// A new cluster's id; the directories of a node (kafka-storage.sh)
    Storage(storage::Options),
}

/// Where the cluster is and how to talk to it.
#[derive(Debug, Args)]
struct Connection {
    /// The servers to ask first
    #[arg(short, long, value_name = "host:port,...")]
    bootstrap_server: Option<String>,
    /// Client properties: client.id, request.timeout.ms, default.api.timeout.ms
    #[arg(short, long, value_name = "file")]
    command_config: Option<PathBuf>,
    /// Wait for a server that is not there yet, up to default.api.timeout.ms, as Kafka's tools do
    // May be given twice: the image's scripts give it, and so may who calls them.
    #[arg(long, overrides_with = "wait")]
    wait: bool,
}

/// Why a tool did not do what it was asked.
#[derive(Debug)]
enum Failure {
    /// The command line asks for what cannot be.
    Usage(String),
    /// The cluster did not do it, or is not there.
    Client(client::Error),
    /// It was seen here that it cannot be done.
    Refused(String),
    /// Everything has been said already; how the process ends is all that is left.
    Said(u8),
    /// Nobody reads what is printed any more, as in `... | head`.
    Closed,
}

impl<E: Into<client::Error>> From<E> for Failure {
    fn from(err: E) -> Self {
        Self::Client(err.into())
    }
}

/// How Kafka's tool says that something failed.
struct Manner {
    /// What the sentence begins with.
    prefix: &'static str,
    stream: Stream,
    /// Does Kafka's tool begin so too when it sees by itself that something cannot be done?
    before_own_refusals: bool,
    /// Does Kafka's tool end as if all were well after a broker has said no?
    refusal_is_success: bool,
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Out,
    Err,
}

impl Tool {
    fn manner(&self) -> Manner {
        let (prefix, stream) = match self {
            Self::Topics(_) => ("Error while executing topic command : ", Stream::Out),
            Self::Groups(_) => (
                "\nError: Executing consumer group command failed due to ",
                Stream::Out,
            ),
            Self::Configs(_) => ("Error while executing config command: ", Stream::Err),
            Self::GetOffsets(_) => ("Error occurred: ", Stream::Err),
            _ => ("", Stream::Err),
        };
        Manner {
            prefix,
            stream,
            before_own_refusals: !matches!(self, Self::Configs(_)),
            refusal_is_success: matches!(self, Self::Groups(_)),
        }
    }

    /// The name of the subcommand, for the hint to its help.
    fn name(&self) -> &'static str {
        match self {
            Self::Topics(_) => "topics",
            Self::Groups(_) => "groups",
            Self::Configs(_) => "configs",
            Self::Produce(_) => "produce",
            Self::Consume(_) => "consume",
            Self::Cluster(_) => "cluster",
            Self::ApiVersions(_) => "api-versions",
            Self::GetOffsets(_) => "get-offsets",
            Self::DeleteRecords(_) => "delete-records",
            Self::LogDirs(_) => "log-dirs",
            Self::LeaderElection(_) => "leader-election",
            Self::MetadataQuorum(_) => "metadata-quorum",
            Self::Features(_) => "features",
            Self::DumpLog(_) => "dump-log",
            Self::Storage(_) => "storage",
        }
    }
}

/// Runs a tool to its end.
pub(crate) fn run(tool: Tool) -> ExitCode {
    let mut console = Console::new();
    let manner = tool.manner();
    let name = tool.name();
    // One connection is asked and waited for at a time, so one thread is enough and starts fastest.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(err) => {
            console.complain(&format!("cannot start: {err}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(dispatch(tool, &mut console));
    // A thread that waits for standard input or for a name server must not hold up the end.
    runtime.shutdown_background();
    let result = result.and_then(|()| console.flush());
    conclude(result, &manner, name, &mut console)
}

async fn dispatch(tool: Tool, console: &mut Console) -> Result<(), Failure> {
    match tool {
        Tool::Topics(options) => topics::run(options, console).await,
        Tool::Groups(options) => groups::run(options, console).await,
        Tool::Configs(options) => configs::run(options, console).await,
        Tool::Produce(options) => produce::run(options, console).await,
        Tool::Consume(options) => consume::run(options, console).await,
        Tool::Cluster(options) => cluster::run(options, console).await,
        Tool::ApiVersions(options) => api_versions::run(options, console).await,
        Tool::GetOffsets(options) => get_offsets::run(options, console).await,
        Tool::DeleteRecords(options) => delete_records::run(options, console).await,
        Tool::LogDirs(options) => log_dirs::run(options, console).await,
        Tool::LeaderElection(options) => leader_election::run(options, console).await,
        Tool::MetadataQuorum(options) => quorum::run(options, console).await,
        Tool::Features(options) => features::run(options, console).await,
        Tool::DumpLog(options) => dump_log::run(&options, console),
        Tool::Storage(options) => storage::run(options, console),
    }
}

fn conclude(
    result: Result<(), Failure>,
    manner: &Manner,
    name: &str,
    console: &mut Console,
) -> ExitCode {
    let mut prefix = manner.prefix;
    let (text, code) = match result {
        Ok(()) | Err(Failure::Closed) => return ExitCode::SUCCESS,
        Err(Failure::Said(code)) => return ExitCode::from(code),
        Err(Failure::Usage(text)) => {
            console.complain(&text);
            console.complain(&format!("`sordini {name} --help` lists the options."));
            return ExitCode::FAILURE;
        }
        Err(Failure::Client(client::Error::Refused(refusal))) => {
            let code = match manner.refusal_is_success {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            };
            (refusal.to_string(), code)
        }
        Err(Failure::Client(err)) => (err.to_string(), ExitCode::FAILURE),
        Err(Failure::Refused(text)) => {
            if !manner.before_own_refusals {
                prefix = "";
            }
            (text, ExitCode::FAILURE)
        }
    };
    let text = format!("{prefix}{text}");
    match manner.stream {
        // Nobody is left to tell if standard output is closed.
        Stream::Out => drop(console.line(&text).and_then(|()| console.flush())),
        Stream::Err => console.complain(&text),
    }
    code
}

impl Connection {
    /// Connects as the tool `client_id`. Says so if it has to wait.
    async fn open(&self, client_id: &str, console: &mut Console) -> Result<Client, Failure> {
        let servers = required(self.bootstrap_server.as_deref(), "bootstrap-server")?;
        connect(servers, self.settings(client_id)?, console).await
    }

    fn settings(&self, client_id: &str) -> Result<Settings, Failure> {
        let mut settings = Settings::new(client_id);
        if let Some(file) = &self.command_config {
            settings.read(file)?;
        }
        settings.waits = self.wait;
        Ok(settings)
    }
}

async fn connect(
    servers: &str,
    settings: Settings,
    console: &mut Console,
) -> Result<Client, Failure> {
    let patience = settings.api_timeout.as_millis();
    let waiting = |err: &client::Error| {
        console.complain(&format!("{err} Trying again for {patience} ms."));
    };
    Ok(Client::connect(servers, settings, waiting).await?)
}

/// The value of an option that must be there.
fn required<'a, T: ?Sized>(value: Option<&'a T>, option: &str) -> Result<&'a T, Failure> {
    value.ok_or_else(|| Failure::Usage(format!("Missing required argument \"[{option}]\"")))
}

/// Refuses two options that exclude each other.
fn not_together(first: (&str, bool), second: (&str, bool)) -> Result<(), Failure> {
    match first.1 && second.1 {
        false => Ok(()),
        true => Err(Failure::Usage(format!(
            "Option \"[{}]\" can't be used with option \"[{}]\"",
            second.0, first.0
        ))),
    }
}
