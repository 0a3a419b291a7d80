//! `sordini features`: what `kafka-features.sh` does, of which describing, upgrading and downgrading by level.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use kafka_protocol::messages::{
    ApiVersionsResponse, UpdateFeaturesRequest, update_features_request::FeatureUpdateKey,
};

use super::{Connection, Failure, console::Console};
use crate::client::refused;

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

/// The names of metadata.version's levels, from the first that a broker of 4.x knows.
const METADATA_VERSIONS: [&str; 27] = [
    "3.3-IV3", "3.4-IV0", "3.5-IV0", "3.5-IV1", "3.5-IV2", "3.6-IV0", "3.6-IV1", "3.6-IV2",
    "3.7-IV0", "3.7-IV1", "3.7-IV2", "3.7-IV3", "3.7-IV4", "3.8-IV0", "3.9-IV0", "4.0-IV0",
    "4.0-IV1", "4.0-IV2", "4.0-IV3", "4.1-IV0", "4.1-IV1", "4.2-IV0", "4.2-IV1", "4.3-IV0",
    "4.4-IV0", "4.4-IV1", "4.4-IV2",
];
const FIRST_METADATA_VERSION: i16 = 7;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the features, what the broker supports and what is finalized
    Describe,
    /// Raise features' levels
    Upgrade {
        #[command(flatten)]
        levels: Levels,
    },
    /// Lower features' levels
    Downgrade {
        #[command(flatten)]
        levels: Levels,
        /// Even if metadata is lost
        #[arg(long = "unsafe")]
        is_unsafe: bool,
    },
    /// Set features to level 0
    Disable {
        /// The feature; may be repeated
        #[arg(long, value_name = "feature", required = true)]
        feature: Vec<String>,
        /// Even if metadata is lost
        #[arg(long = "unsafe")]
        is_unsafe: bool,
        /// Only say whether it could be done
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
struct Levels {
    /// The feature and its new level; may be repeated
    #[arg(long, value_name = "feature=level", required = true)]
    feature: Vec<String>,
    /// Only say whether it could be done
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    let connection = &options.connection;
    match options.action {
        Action::Describe => {
            let mut client = connection.open("sordini-features", console).await?;
            describe(client.versions().await?, console)
        }
        Action::Upgrade { levels } => {
            let change = Change::new("upgrade", UPGRADE, levels.dry_run);
            change
                .run(&parse(&levels.feature)?, connection, console)
                .await
        }
        Action::Downgrade { levels, is_unsafe } => {
            let kind = if is_unsafe {
                UNSAFE_DOWNGRADE
            } else {
                SAFE_DOWNGRADE
            };
            let change = Change::new("downgrade", kind, levels.dry_run);
            change
                .run(&parse(&levels.feature)?, connection, console)
                .await
        }
        Action::Disable {
            feature,
            is_unsafe,
            dry_run,
        } => {
            let kind = if is_unsafe {
                UNSAFE_DOWNGRADE
            } else {
                SAFE_DOWNGRADE
            };
            let levels: Vec<(String, i16)> = feature.into_iter().map(|name| (name, 0)).collect();
            Change::new("disable", kind, dry_run)
                .run(&levels, connection, console)
                .await
        }
    }
}

fn describe(versions: &ApiVersionsResponse, console: &mut Console) -> Result<(), Failure> {
    let mut features: BTreeMap<&str, (i16, i16, i16)> = BTreeMap::new();
    for feature in &versions.supported_features {
        features.insert(&feature.name, (feature.min_version, feature.max_version, 0));
    }
    for feature in &versions.finalized_features {
        let row = features.entry(&feature.name).or_default();
        row.2 = feature.max_version_level;
    }
    let epoch = match versions.finalized_features_epoch {
        -1 => "-".to_owned(),
        epoch => epoch.to_string(),
    };
    for (name, (min, max, level)) in features {
        console.line(&format!(
            "Feature: {name:<42}SupportedMinVersion: {:<17}SupportedMaxVersion: {:<17}FinalizedVersionLevel: {:<17}Epoch: {epoch}",
            level_text(name, min),
            level_text(name, max),
            level_text(name, level)
        ))?;
    }
    Ok(())
}

pub(super) fn level_text(feature: &str, level: i16) -> String {
    if feature != "metadata.version" {
        return level.to_string();
    }
    let at = usize::try_from(level - FIRST_METADATA_VERSION).ok();
    match at.and_then(|at| METADATA_VERSIONS.get(at)) {
        Some(name) => (*name).to_owned(),
        None => format!("UNKNOWN {level}"),
    }
}

/// The level of metadata.version that has this name, or the newest of this release.
pub(super) fn metadata_version(release: &str) -> Option<i16> {
    let is_meant = |name: &&str| {
        let rest = name.strip_prefix(release);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("-IV"))
    };
    let at = METADATA_VERSIONS.iter().rposition(is_meant)?;
    Some(FIRST_METADATA_VERSION + i16::try_from(at).ok()?)
}

pub(super) fn parse(features: &[String]) -> Result<Vec<(String, i16)>, Failure> {
    let parse_one = |text: &String| {
        let (name, level) = text.split_once('=')?;
        Some((name.trim().to_owned(), level.trim().parse().ok()?))
    };
    features
        .iter()
        .map(|text| {
            parse_one(text).ok_or_else(|| {
                Failure::Refused(format!(
                    "Can't parse feature=level string {text}: a feature, = and a number are expected"
                ))
            })
        })
        .collect()
}

/// A change of levels, and how it is spoken of.
struct Change {
    verb: &'static str,
    kind: i8,
    dry_run: bool,
}

impl Change {
    fn new(verb: &'static str, kind: i8, dry_run: bool) -> Change {
        Change {
            verb,
            kind,
            dry_run,
        }
    }

    /// Brokers change all or nothing, so what is wrong with one is said of each.
    async fn run(
        &self,
        levels: &[(String, i16)],
        connection: &Connection,
        console: &mut Console,
    ) -> Result<(), Failure> {
        let mut client = connection.open("sordini-features", console).await?;
        let update = |(name, level): &(String, i16)| {
            FeatureUpdateKey::default()
                .with_feature(name.clone().into())
                .with_max_version_level(*level)
                .with_upgrade_type(self.kind)
        };
        let request = UpdateFeaturesRequest::default()
            .with_feature_updates(levels.iter().map(update).collect())
            .with_timeout_ms(client.timeout_ms())
            .with_validate_only(self.dry_run);
        client.version::<UpdateFeaturesRequest>(2).await?;
        let response = client.any(2, &request).await?;
        let refusal = refused(response.error_code, response.error_message.as_ref()).err();
        let past = match self.verb {
            "disable" => "disabled".to_owned(),
            verb => format!("{verb}d"),
        };
        let mut failures = 0;
        for (name, level) in levels {
            let to = match self.verb {
                "disable" => String::new(),
                _ => format!(" to {level}"),
            };
            console.line(&match (&refusal, self.dry_run) {
                (None, true) => format!("{name} can be {past}{to}."),
                (None, false) => format!("{name} was {past}{to}."),
                (Some(refusal), dry_run) => {
                    failures += 1;
                    let could = if dry_run { "Can not" } else { "Could not" };
                    format!("{could} {} {name}{to}. {refusal}", self.verb)
                }
            })?;
        }
        match failures {
            0 => Ok(()),
            _ => Err(Failure::Refused(format!(
                "{failures} out of {} operation(s) failed.",
                levels.len()
            ))),
        }
    }
}
