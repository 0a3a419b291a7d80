//! What is logged, and how: by `tracing`, in plain lines on standard output.
//!
//! `SORDINI_LOG` says which (`warn`, `info,sordini::server=debug`, ...), or `RUST_LOG`, or, as in Apache's image,
//! `KAFKA_LOG4J_ROOT_LOGLEVEL`; without any of them `info`, of Raft only warnings: an election of one is no news. `SORDINI_LOG_FORMAT=json` writes an object per line.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

const DEFAULT: &str = "info,openraft=warn";

/// Starts logging; once, before anything logs.
pub fn init() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (filter, refused) = filter(variable);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stdout().is_terminal());
    if variable("SORDINI_LOG_FORMAT").as_deref() == Some("json") {
        builder.json().init();
    } else {
        builder.init();
    }
    if let Some(refused) = refused {
        tracing::warn!("{refused}, logging at level info");
    }
}

/// The filter the environment asks for; `info`, and what was wrong, where it cannot be read.
fn filter(variable: impl Fn(&str) -> Option<String>) -> (EnvFilter, Option<String>) {
    for name in ["SORDINI_LOG", "RUST_LOG"] {
        if let Some(value) = variable(name) {
            return match EnvFilter::try_new(&value) {
                Ok(filter) => (filter, None),
                Err(err) => (
                    EnvFilter::new(DEFAULT),
                    Some(format!("cannot read {name}={value} ({err})")),
                ),
            };
        }
    }
    let level = variable("KAFKA_LOG4J_ROOT_LOGLEVEL");
    (
        EnvFilter::new(level.as_deref().and_then(from_log4j).unwrap_or(DEFAULT)),
        None,
    )
}

fn from_log4j(level: &str) -> Option<&'static str> {
    match level.to_ascii_uppercase().as_str() {
        "OFF" => Some("off"),
        "FATAL" | "ERROR" => Some("error"),
        "WARN" => Some("warn"),
        "INFO" => Some("info"),
        "DEBUG" => Some("debug"),
        "TRACE" | "ALL" => Some("trace"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_variable_goes_before_the_general_and_kafkas() {
        check(&[], DEFAULT);
        check(&[("KAFKA_LOG4J_ROOT_LOGLEVEL", "FATAL")], "error");
        check(&[("KAFKA_LOG4J_ROOT_LOGLEVEL", "loud")], DEFAULT);
        check(
            &[("RUST_LOG", "warn"), ("KAFKA_LOG4J_ROOT_LOGLEVEL", "DEBUG")],
            "warn",
        );
        check(
            &[("SORDINI_LOG", "sordini=debug"), ("RUST_LOG", "warn")],
            "sordini=debug",
        );
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let (filter, refused) = filter(|name| (name == "SORDINI_LOG").then(|| "a=b=c".to_owned()));
        assert_eq!(filter.to_string(), EnvFilter::new(DEFAULT).to_string());
        assert!(refused.is_some_and(|text| text.contains("SORDINI_LOG=a=b=c")));
    }

    #[track_caller]
    fn check(variables: &[(&str, &str)], want: &str) {
        let variable = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(
            filter(variable).0.to_string(),
            EnvFilter::new(want).to_string()
        );
    }
}
