//! How a tool talks to the cluster: what `--command-config` may say, and what it says in vain.

use std::{path::Path, time::Duration};

use super::Error;
use crate::config::properties;

/// What Kafka's tools wait for a whole operation (`default.api.timeout.ms`).
const API_TIMEOUT: Duration = Duration::from_secs(60);

/// What they wait for one answer (`request.timeout.ms`).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What they wait for a connection (`socket.connection.setup.timeout.ms`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) client_id: String,
    pub(crate) api_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    /// Is a broker that is not there yet waited for, as long as an operation may take? Kafka's tools do; scripts
    /// use them to wait for a cluster that is starting.
    pub(crate) waits: bool,
}

impl Settings {
    pub(crate) fn new(client_id: &str) -> Settings {
        Settings {
            client_id: client_id.to_owned(),
            api_timeout: API_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            waits: false,
        }
    }

    /// Takes what a file of client configuration says. Keys that change nothing here are passed over, except those
    /// that ask for a safety that would be missing.
    pub(crate) fn read(&mut self, file: &Path) -> Result<(), Error> {
        for (key, value) in pairs(file)? {
            self.set(&key, &value)?;
        }
        Ok(())
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let ms = || match value.trim().parse::<u32>() {
            Ok(ms) => Ok(Duration::from_millis(ms.into())),
            Err(_) => Err(Error::Setting(format!(
                "Invalid value {value} for configuration {key}: a number of milliseconds is expected"
            ))),
        };
        match key {
            "client.id" => self.client_id = value.to_owned(),
            "default.api.timeout.ms" => self.api_timeout = ms()?,
            "request.timeout.ms" => self.request_timeout = ms()?,
            "socket.connection.setup.timeout.ms" => self.connect_timeout = ms()?,
            "security.protocol" if value != "PLAINTEXT" => {
                return Err(Error::Setting(format!(
                    "security.protocol={value} is not spoken by these tools yet, only PLAINTEXT"
                )));
            }
            _ => (),
        }
        Ok(())
    }
}

/// The `key=value` lines of a file, as Java reads them.
pub(crate) fn pairs(file: &Path) -> Result<Vec<(String, String)>, Error> {
    let cannot = |err: &dyn std::fmt::Display| {
        Error::Setting(format!("cannot read {}: {err}", file.display()))
    };
    let text = std::fs::read_to_string(file).map_err(|err| cannot(&err))?;
    let properties = properties::parse(&text)
        .map_err(|(line, why)| cannot(&format_args!("line {line}: {why}")))?;
    Ok(properties
        .into_iter()
        .map(|property| (property.key, property.value))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_that_is_not_spoken_is_refused_and_not_passed_over() {
        let mut settings = Settings::new("test");
        settings
            .set("security.protocol", "PLAINTEXT")
            .expect("spoken");
        settings.set("linger.ms", "5").expect("passed over");
        let refused = settings.set("security.protocol", "SASL_SSL").unwrap_err();
        assert!(refused.to_string().contains("SASL_SSL"), "{refused}");
        settings.set("request.timeout.ms", "250").expect("a number");
        assert_eq!(settings.request_timeout, Duration::from_millis(250));
        assert!(settings.set("request.timeout.ms", "soon").is_err());
    }
}
