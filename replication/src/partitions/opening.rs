//! Opening the log of a partition that an image has named, or beginning it.

use std::sync::Arc;

use storage::{
    directory::{Directory, State},
    error::Error,
    log::Log,
};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{Doomed, index::Slot};
use crate::partition::{Config, Home, Leadership, Name, Partition};

/// A log to be opened or begun.
pub(super) struct Opening {
    pub(super) name: Name,
    /// Where logs of this name were left, the most likely one first. What an earlier topic of the same
    /// name has left is found out here.
    pub(super) found: Vec<Arc<Directory>>,
    /// Where a new one goes; `None` when no directory is left that works.
    pub(super) directory: Option<Arc<Directory>>,
    pub(super) config: Config,
    pub(super) leadership: Leadership,
}

/// What has become of it.
pub(super) struct Opened {
    pub(super) name: Name,
    pub(super) slot: Slot,
    /// Logs of the same partition whose place this one has taken.
    pub(super) doomed: Vec<Doomed>,
}

impl Opening {
    /// `set_topic_id` is told the directory, the log's name and its topic's id.
    pub(super) fn run(
        self,
        node_id: i32,
        set_topic_id: impl Fn(&Directory, &str, Uuid) -> Result<(), Error>,
        now: i64,
    ) -> Opened {
        let mut doomed = Vec::new();
        let opened = self.home(set_topic_id, &mut doomed, now);
        let Self {
            name,
            config,
            leadership,
            ..
        } = self;
        let slot = match opened {
            Ok(Some(home)) => {
                let partition =
                    Partition::new(name.clone(), node_id, home, config.rules, leadership);
                Slot::Here(Arc::new(partition))
            }
            Ok(None) => {
                error!(partition = %name, "the partition is offline: its log directory has failed, or none is left");
                Slot::Offline
            }
            Err(err) => {
                error!(partition = %name, %err, "cannot open the partition's log: it is offline");
                Slot::Offline
            }
        };
        Opened { name, slot, doomed }
    }

    fn home(
        &self,
        set_topic_id: impl Fn(&Directory, &str, Uuid) -> Result<(), Error>,
        doomed: &mut Vec<Doomed>,
        now: i64,
    ) -> Result<Option<Home>, Error> {
        let name = self.name.to_string();
        let mut own: Vec<(&Arc<Directory>, Option<Uuid>)> = Vec::new();
        for found in &self.found {
            match found.topic_id(&name)? {
                Some(id) if id != self.name.topic_id => set_aside(found, &name, now),
                known => own.push((found, known)),
            }
        }
        let mut own = own.into_iter();
        let (directory, known) = match (own.next(), &self.directory) {
            (Some(own), _) => own,
            (None, Some(directory)) => (directory, directory.topic_id(&name)?),
            (None, None) => return Ok(None),
        };
        let log = directory.open_log(&name, self.config.log.clone(), now)?;
        if known.is_none() {
            set_topic_id(directory, &name, self.name.topic_id)?;
        }
        for (other, _) in own {
            doomed.extend(self.supersede(other, &log, now));
        }
        let directory = Arc::clone(directory);
        Ok(Some(Home { log, directory }))
    }

    /// Does away with a second log of the partition, which a stop between the two renames of a move has
    /// left: were it to stay, it could one day be taken for the first. It is kept if it is longer, which
    /// no move leaves behind.
    fn supersede(&self, other: &Arc<Directory>, log: &Log, now: i64) -> Option<Doomed> {
        let name = self.name.to_string();
        let dir = other.path().display();
        let renamed = other
            .open_log(&name, self.config.log.clone(), now)
            .and_then(|second| {
                let state = match second.end_offset() <= log.end_offset() {
                    true => State::Deleted,
                    false => State::Stray,
                };
                Ok((state, other.rename(&second, &name, state)?))
            });
        match renamed {
            Ok((State::Deleted, renamed)) => {
                info!(name, %dir, "a log is deleted: a move to or from its directory had not quite ended");
                Some(Doomed {
                    at: now.saturating_add(self.config.log.file_delete_delay_ms),
                    directory: Arc::clone(other),
                    name: renamed,
                })
            }
            Ok((_, renamed)) => {
                warn!(name, %dir, renamed, "the same partition is in another log directory: the log is renamed and kept");
                None
            }
            Err(err) => {
                error!(name, %dir, %err, "the same partition is in another log directory, and cannot be set aside");
                None
            }
        }
    }
}

/// Renames a log of which the cluster does not know, and keeps it.
pub(super) fn set_aside(directory: &Directory, name: &str, now: i64) {
    let dir = directory.path().display();
    let renamed = directory
        .open_log(name, storage::config::Config::default(), now)
        .and_then(|log| directory.rename(&log, name, State::Stray));
    match renamed {
        Ok(renamed) => {
            warn!(name, %dir, renamed, "the cluster does not know this log: it is renamed and kept");
        }
        Err(err) => {
            error!(name, %dir, %err, "cannot set a log aside that the cluster does not know")
        }
    }
}
