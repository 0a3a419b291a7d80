//! `sordini storage`: what `kafka-storage.sh` does before a first start. A node also formats its own directories when
//! it starts, so all that formatting decides is the cluster's id.

use std::{path::PathBuf, sync::Arc};

use clap::{Args, Subcommand};
use storage::{
    directory::{self, Directory},
    disk,
    properties::{Identity, decode_uuid, encode_uuid},
};

use super::{Failure, console::Console, features as levels};
use crate::{
    clock,
    config::{Config, Sources},
    features,
};

/// Enough for formatting: no log is opened.
const FILES_MAX: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print an id for a new cluster
    RandomUuid,
    /// Make the log directories of a node belong to a cluster
    Format(Format),
    /// Show whose the log directories of a node are
    Info {
        /// The node's configuration
        #[arg(short, long, value_name = "server.properties")]
        config: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Format {
    /// The node's configuration
    #[arg(short, long, value_name = "server.properties")]
    config: PathBuf,
    /// The cluster's id, as random-uuid prints one
    #[arg(short = 't', long, value_name = "id")]
    cluster_id: String,
    /// Leave directories alone that are formatted already
    #[arg(short = 'g', long)]
    ignore_formatted: bool,
    /// One controller, which is this node: there is nothing else here
    #[arg(short, long)]
    standalone: bool,
    /// The same here: a node is the only controller from its first start on
    #[arg(short = 'N', long, conflicts_with = "standalone")]
    no_initial_controllers: bool,
    /// A feature and the level that a new cluster has anyway; may be repeated
    #[arg(short, long, value_name = "feature=level")]
    feature: Vec<String>,
    /// The release whose metadata.version a new cluster has anyway
    #[arg(short, long, value_name = "release")]
    release_version: Option<String>,
}

pub(super) fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    match options.action {
        Action::RandomUuid => {
            // One that begins with - would look like an option on a command line.
            let mut ids = std::iter::repeat_with(|| encode_uuid(uuid::Uuid::new_v4()));
            match ids.find(|id| !id.starts_with('-')) {
                Some(id) => console.line(&id),
                None => Ok(()),
            }
        }
        Action::Format(options) => format_directories(&options, console),
        Action::Info { config } => info(&load(config)?, console),
    }
}

fn load(file: PathBuf) -> Result<Config, Failure> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Config::load(&Sources {
        file: Some(file),
        environment: environment.collect(),
        overrides: Vec::new(),
    })
    .map_err(|err| Failure::Refused(err.to_string()))
}

fn format_directories(options: &Format, console: &mut Console) -> Result<(), Failure> {
    let failed = |err: storage::error::Error| Failure::Refused(err.to_string());
    if decode_uuid(&options.cluster_id).is_none() {
        return Err(Failure::Refused(format!(
            "Cluster ID string {} does not appear to be a valid UUID: 22 characters of base64 are expected, as \
             `sordini storage random-uuid` prints them",
            options.cluster_id
        )));
    }
    check_levels(options)?;
    let config = load(options.config.clone())?;
    let disk = disk::real();
    let mut new = Vec::new();
    for path in &config.log_dirs {
        match directory::cluster_id(&*disk, path).map_err(failed)? {
            None => new.push(path),
            Some(_) if options.ignore_formatted => (),
            Some(_) => {
                return Err(Failure::Refused(format!(
                    "Log directory {} is already formatted. Use --ignore-formatted to ignore this directory and format the \
                     others.",
                    path.display()
                )));
            }
        }
    }
    if new.is_empty() {
        return console.line("All of the log directories are already formatted.");
    }
    let identity = Identity {
        cluster_id: options.cluster_id.clone(),
        node_id: config.node_id,
    };
    for path in new {
        console.line(&format!("Formatting data directory {}.", path.display()))?;
        directory::create(&*disk, path).map_err(failed)?;
        Directory::open(Arc::clone(&disk), path, &identity, FILES_MAX, clock::now())
            .map_err(failed)?;
    }
    Ok(())
}

/// Formatting decides no levels, so it takes only those that a new cluster begins with.
fn check_levels(options: &Format) -> Result<(), Failure> {
    let initial = features::initial();
    let mut wanted = levels::parse(&options.feature)?;
    if let Some(release) = &options.release_version {
        let level = levels::metadata_version(release)
            .ok_or_else(|| Failure::Refused(format!("Unknown release version {release}.")))?;
        wanted.push(("metadata.version".to_owned(), level));
    }
    for (name, level) in wanted {
        let begins = initial.get(&name).copied().unwrap_or(0);
        if begins != level {
            return Err(Failure::Refused(format!(
                "Formatting with {name} at {} is not possible: a new cluster begins with {}. Where other levels are \
                 supported, `sordini features` sets them once it runs.",
                levels::level_text(&name, level),
                levels::level_text(&name, begins)
            )));
        }
    }
    Ok(())
}

fn info(config: &Config, console: &mut Console) -> Result<(), Failure> {
    let disk = disk::real();
    let mut formatted = true;
    for path in &config.log_dirs {
        let id =
            directory::cluster_id(&*disk, path).map_err(|err| Failure::Refused(err.to_string()))?;
        formatted &= id.is_some();
        console.line(&match id {
            Some(id) => format!("{} belongs to the cluster {id}", path.display()),
            None => format!("{} is not formatted", path.display()),
        })?;
    }
    match formatted {
        true => Ok(()),
        false => Err(Failure::Said(1)),
    }
}
