//! `sordini api-versions`: what `kafka-broker-api-versions.sh` does.

use clap::Args;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, api_versions_response::ApiVersion};

use super::{Connection, Failure, console::Console};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    let mut client = options
        .connection
        .open("sordini-api-versions", console)
        .await?;
    let metadata = client.metadata(Some(&[])).await?;
    for broker in metadata.brokers {
        let rack = broker.rack.as_deref().unwrap_or("null");
        console.line(&format!(
            "{}:{} (id: {} rack: {rack} isFenced: false) -> (",
            &*broker.host, broker.port, broker.node_id.0
        ))?;
        let versions = client.peer(broker.node_id.0).await?.versions();
        for line in lines(versions) {
            console.line(&line)?;
        }
        console.line(")")?;
    }
    Ok(())
}

/// A line for each request that the broker serves, or that is known here and not served.
fn lines(versions: &ApiVersionsResponse) -> Vec<String> {
    let mut served: Vec<&ApiVersion> = versions.api_keys.iter().collect();
    served.sort_by_key(|served| served.api_key);
    let count = served.len();
    let line = |(at, served): (usize, &ApiVersion)| {
        let comma = if at + 1 < count { "," } else { "" };
        let (min, max) = (served.min_version, served.max_version);
        let range = match min == max {
            true => min.to_string(),
            false => format!("{min} to {max}"),
        };
        match ApiKey::try_from(served.api_key) {
            Ok(key) => {
                let known = key.valid_versions();
                let usable = max.min(known.max);
                let usable = match min.max(known.min) <= usable {
                    true => usable.to_string(),
                    false => "none".to_owned(),
                };
                let name = format!("{key:?}");
                format!(
                    "\t{name}({}): {range} [usable: {usable}]{comma}",
                    served.api_key
                )
            }
            Err(()) => format!("\tUNKNOWN({}): {range}{comma}", served.api_key),
        }
    };
    served.into_iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_not_known_here_is_shown_by_its_number() {
        let api = |key: i16, min: i16, max: i16| {
            ApiVersion::default()
                .with_api_key(key)
                .with_min_version(min)
                .with_max_version(max)
        };
        let versions = ApiVersionsResponse::default().with_api_keys(vec![
            api(999, 0, 0),
            api(0, 0, 13),
            api(18, 0, 99),
        ]);
        assert_eq!(
            lines(&versions),
            [
                "\tProduce(0): 0 to 13 [usable: 13],",
                "\tApiVersions(18): 0 to 99 [usable: 4],",
                "\tUNKNOWN(999): 0",
            ]
        );
    }
}
