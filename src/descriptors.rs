//! File descriptors: how many there are for this process, and who may have them.
//!
//! Shells, systemd and container engines start a process with 1,024 and let it take more, which Java does without being
//! asked: where Apache Kafka ran, this broker must run. What connections leave is for the logs, so that no crowd of
//! clients can keep the broker from opening a file; a log directory whose files cannot be opened goes offline.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Open files of each log directory, at most: who has more partitions at work gains nothing by more.
const FILES_MAX: usize = 4096;

/// A log's segment has four files, and an append needs three of them at the same time.
const FILES_MIN: usize = 16;

/// For everything else: listeners, the controller's log, the runtime, checkpoints while they are written.
const OTHERS: usize = 128;

/// Of how many descriptors whoever runs this should be told.
const FEW: usize = 4096;

/// Who may have how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Files that a log directory keeps open.
    pub(crate) files: usize,
    /// Clients' connections, whatever `max.connections` says.
    pub(crate) connections: usize,
}

impl Shares {
    /// Of the process's limit as it is now.
    pub(crate) fn of_process(directories: usize) -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let shares = Self::of(usize::try_from(limit).unwrap_or(usize::MAX), directories);
        if limit < FEW as u64 {
            tracing::warn!(
                limit,
                connections = shares.connections,
                files = shares.files,
                "few open files are allowed (ulimit -n): more connections are refused, and files of logs are \
                 opened again and again"
            );
        }
        shares
    }

    fn of(limit: usize, directories: usize) -> Self {
        let directories = directories.max(1);
        let shared = limit.saturating_sub(OTHERS);
        let files = (shared / 2 / directories).clamp(FILES_MIN, FILES_MAX);
        Self {
            files,
            connections: shared.saturating_sub(files * directories).max(1),
        }
    }
}

/// Takes as many as the process is allowed to.
///
/// # Errors
/// If the system refuses, which it has no reason to.
pub fn raise_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_have_their_share_and_connections_what_is_left() {
        let shares = |limit, directories| {
            let Shares { files, connections } = Shares::of(limit, directories);
            (files, connections)
        };
        assert_eq!(shares(1024, 1), (448, 448));
        assert_eq!(shares(1024, 2), (224, 448));
        assert_eq!(shares(20_000, 1), (4096, 15_776));
        assert_eq!(shares(0, 3), (16, 1));
        assert_eq!(shares(usize::MAX, 1).0, 4096);
    }
}
