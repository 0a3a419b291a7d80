//! Why there is no configuration, in words for who wrote it.

use std::{fmt, io, path::PathBuf};

use super::settings::Origin;

/// Why there is no [`Config`].
#[derive(Debug)]
pub enum Error {
    Unreadable {
        path: PathBuf,
        source: io::Error,
    },
    Malformed {
        path: PathBuf,
        line: usize,
        reason: &'static str,
    },
    Invalid(Vec<Problem>),
}

/// A value that will not do.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Names key and value, in Kafka's words where Kafka has them.
    pub reason: String,
    /// Where the value was set; `None` when a key is missing.
    pub origin: Option<Origin>,
    pub allowed: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreadable { path, .. } => write!(f, "cannot read {}", path.display()),
            Error::Malformed { path, line, reason } => {
                write!(f, "{}:{line}: {reason}", path.display())
            }
            Error::Invalid(problems) => {
                let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Unreadable { source, .. } => Some(source),
            Error::Malformed { .. } | Error::Invalid(_) => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match &self.origin {
            Some(origin) => write!(f, " (set by {origin}")?,
            None => f.write_str(" (not set")?,
        }
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        f.write_str(")")
    }
}
