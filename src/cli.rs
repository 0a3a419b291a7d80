//! The command line: what to do, with which configuration, and what the process answers.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{Config, Error, Sources},
    tools::{self, Tool},
};

/// How the process ends, for scripts and supervisors. The help text lists the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or stopped as asked.
    Done = 0,
    /// Something failed while running.
    Failed = 1,
    /// The command line makes no sense; clap answers this one.
    Usage = 2,
    /// The configuration is wrong or cannot be read. Nothing was opened.
    Configuration = 3,
    /// A data directory cannot be used: in use, of another cluster, of a newer format, not writable. Or one without which
    /// nothing goes on has failed while running, the one with the controller's state among them.
    Directory = 4,
    /// A listener's address cannot be bound.
    Address = 5,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  stopped as asked
  1  failed while running
  2  the command line is wrong
  3  the configuration is wrong or cannot be read; nothing was opened
  4  a data directory cannot be used, or the last one or that of the metadata has failed while running
  5  an address cannot be listened on

Configuration: server.properties as Apache Kafka reads it, then KAFKA_* variables as its image maps them \
(KAFKA_LOG_DIRS is log.dirs), then --override. With none of them a single node starts on port 9092 with its data in \
./data. SORDINI_LOG or RUST_LOG sets what is logged (info, debug, sordini=debug, ...).";

#[derive(Debug, Parser)]
#[command(
    name = "sordini",
    version,
    propagate_version = true,
    about = "A broker that speaks Apache Kafka's wire protocol",
    after_help = EXIT_CODES,
    args_conflicts_with_subcommands = true,
    infer_long_args = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    node: Node,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the configuration a node would start with, and where each value comes from
    Config(Node),
    #[command(flatten)]
    Tool(Box<Tool>),
}

/// Which node: what its configuration is read from.
#[derive(Debug, Args)]
struct Node {
    /// The node's configuration, a file of key=value lines
    #[arg(value_name = "server.properties")]
    file: Option<PathBuf>,
    /// Set a key, over the file and the environment; may be repeated
    #[arg(long = "override", value_name = "key=value", value_parser = pair)]
    overrides: Vec<(String, String)>,
}

/// Does what the command line says. `start` runs a node until it is stopped.
pub fn run(start: impl FnOnce(Config) -> Exit) -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(err) => return tell(&err),
    };
    let (node, is_start) = match arguments.command {
        None => (arguments.node, true),
        Some(Command::Config(node)) => (node, false),
        Some(Command::Tool(tool)) => return tools::run(*tool),
    };
    let exit = match node.load() {
        Err(err) => {
            report(&err);
            Exit::Configuration
        }
        Ok(config) if is_start => start(config),
        Ok(config) => show(&config),
    };
    ExitCode::from(exit as u8)
}

/// Says what is wrong with the command line, or what was asked of it. Kafka's tools end with 1 where others end with 2.
fn tell(err: &clap::Error) -> ExitCode {
    // Nothing is left to tell if the stream is closed.
    let _ = err.print();
    let first = std::env::args().nth(1).unwrap_or_default();
    let code = match err.exit_code() {
        0 => 0,
        _ if Tool::has_subcommand(&first) => Exit::Failed as u8,
        _ => Exit::Usage as u8,
    };
    ExitCode::from(code)
}

impl Node {
    fn load(self) -> Result<Config, Error> {
        Config::load(&Sources {
            file: self.file,
            environment: std::env::vars_os().filter_map(unicode).collect(),
            overrides: self.overrides,
        })
    }
}

/// Variables that are not Unicode belong to something else.
fn unicode((name, value): (OsString, OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("key=value is expected"),
    }
}

fn report(err: &Error) {
    let mut text = err.to_string();
    let mut cause = std::error::Error::source(err);
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    // Nothing is left to tell if standard error is closed.
    let _ = io::stderr().write_all(prefixed("error", &text).as_bytes());
}

fn show(config: &Config) -> Exit {
    let mut text = String::new();
    for (key, value, origin) in config.effective() {
        match origin {
            Some(origin) => text.push_str(&format!("{key}={value}  ({origin})\n")),
            None => text.push_str(&format!("{key}={value}  (default)\n")),
        }
    }
    for warning in config.warnings() {
        let _ = io::stderr().write_all(prefixed("warning", warning).as_bytes());
    }
    // `sordini config | head` closes the pipe; that is no failure.
    match io::stdout().write_all(text.as_bytes()) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => Exit::Failed,
        _ => Exit::Done,
    }
}

fn prefixed(word: &str, text: &str) -> String {
    text.lines()
        .map(|line| format!("{word}: {line}\n"))
        .collect()
}
