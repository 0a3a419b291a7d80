//! Feature levels the whole cluster has agreed to use (pure).
//!
//! A level is finalized only if every broker and controller that is registered can live with it.

use std::collections::BTreeMap;

use protocol::records::metadata::{FeatureLevelRecord, MetadataRecord};

use super::Decision;
use crate::{
    cluster::{ClusterImage, METADATA_VERSION},
    error::{Reason, Refusal},
};

/// Name to the range of levels that this software can live with.
pub type Supported = BTreeMap<String, (i16, i16)>;

/// The metadata version of Apache Kafka 4.4.0, by name 4.4-IV2.
pub const LATEST_METADATA_VERSION: i16 = 33;

/// Metadata versions that changed what the records hold: going below one could lose something.
const METADATA_CHANGED: &[i16] = &[7, 8, 11, 13, 14, 15, 17, 23, 30, 32, 33];

/// The one feature that needs records of a certain metadata version.
pub(super) const ELIGIBLE_LEADER_REPLICAS: &str = "eligible.leader.replicas.version";
const METADATA_VERSION_FOR_ELIGIBLE_LEADER_REPLICAS: i16 = 23;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    pub feature: String,
    pub level: i16,
    pub direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Upgrade,
    SafeDowngrade,
    UnsafeDowngrade,
}

/// Carries out all updates or none: the first refusal is the answer.
pub fn update(
    image: &ClusterImage,
    supported: &Supported,
    node_id: i32,
    updates: &[Update],
    validate_only: bool,
) -> Decision<Result<(), Refusal>> {
    let mut proposed = image.features.clone();
    for update in updates {
        proposed.insert(update.feature.clone(), update.level);
    }
    let mut records = Vec::new();
    for update in updates {
        if let Err(refusal) = check(image, supported, node_id, update, &proposed) {
            return Decision::refused(Err(refusal));
        }
        records.push(MetadataRecord::FeatureLevel(FeatureLevelRecord {
            name: update.feature.clone(),
            feature_level: update.level,
        }));
    }
    if validate_only {
        records.clear();
    }
    Decision {
        records,
        answer: Ok(()),
    }
}

fn check(
    image: &ClusterImage,
    supported: &Supported,
    node_id: i32,
    update: &Update,
    proposed: &BTreeMap<String, i16>,
) -> Result<(), Refusal> {
    let Update {
        feature,
        level,
        direction,
    } = update;
    let current = image.feature(feature);
    let invalid = |why: &str| {
        let message = format!("Invalid update version {level} for feature {feature}. {why}");
        Err(Refusal::new(Reason::InvalidUpdateVersion, message))
    };
    if *level < 0 {
        return invalid("A feature version cannot be less than 0.");
    }
    if let Some(why) = why_unsupported(image, supported, node_id, feature, *level) {
        return invalid(&why);
    }
    if *level < current && *direction == Direction::Upgrade {
        return invalid(
            "Can't downgrade the version of this feature without setting the upgrade type to \
             either safe or unsafe downgrade.",
        );
    }
    if current < *level && *direction != Direction::Upgrade {
        return invalid("Can't downgrade to a newer version.");
    }
    if feature == METADATA_VERSION {
        return check_metadata_version(current, *level, *direction);
    }
    if feature == ELIGIBLE_LEADER_REPLICAS && 0 < *level {
        let metadata = proposed.get(METADATA_VERSION).copied().unwrap_or(0);
        if metadata < METADATA_VERSION_FOR_ELIGIBLE_LEADER_REPLICAS {
            return invalid(&format!(
                "{feature} could not be set to {level} because it depends on metadata.version=23 \
                 (4.0-IV1)"
            ));
        }
    }
    Ok(())
}

fn check_metadata_version(current: i16, level: i16, direction: Direction) -> Result<(), Refusal> {
    let between = |version: &i16| level < *version && *version <= current;
    if METADATA_CHANGED.iter().any(between) {
        let why = match direction {
            Direction::UnsafeDowngrade => {
                "Unsafe metadata downgrade is not supported in this version."
            }
            _ => {
                "Refusing to perform the requested downgrade because it might delete metadata \
                 information."
            }
        };
        return Err(Refusal::new(
            Reason::InvalidUpdateVersion,
            format!("Unsupported metadata.version downgrade from {current} to {level}. {why}"),
        ));
    }
    Ok(())
}

fn why_unsupported(
    image: &ClusterImage,
    supported: &Supported,
    node_id: i32,
    feature: &str,
    level: i16,
) -> Option<String> {
    let why = |who: String, range: Option<(i16, i16)>| {
        let (min, max) = range.unwrap_or((0, 0));
        match (min..=max).contains(&level) {
            true => None,
            false if max == 0 => Some(format!("{who} does not support this feature.")),
            false if min == max => Some(format!("{who} only supports versions {min}")),
            false => Some(format!("{who} only supports versions {min}-{max}")),
        }
    };
    let brokers = image.brokers.values().map(|broker| {
        let range = broker.features.get(feature).copied();
        (format!("Broker {}", broker.id), range)
    });
    let others = image
        .controllers
        .values()
        .filter(|controller| controller.controller_id != node_id)
        .map(|controller| {
            let range = controller
                .features
                .iter()
                .find(|known| known.name == feature)
                .map(|known| (known.min_supported_version, known.max_supported_version));
            (format!("Controller {}", controller.controller_id), range)
        });
    let local = (
        format!("Local controller {node_id}"),
        supported.get(feature).copied(),
    );
    std::iter::once(local)
        .chain(brokers)
        .chain(others)
        .find_map(|(who, range)| why(who, range))
}

#[cfg(test)]
mod tests {
    use crate::controller::script::check;

    #[test]
    fn levels_go_up_freely_and_down_if_nothing_is_lost() {
        check(
            "broker 1
             feature transaction.version 2 upgrade
             feature transaction.version 1 upgrade => InvalidUpdateVersion: Invalid update version 1 for feature transaction.version. Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade.
             feature transaction.version 1 safe
             feature transaction.version 2 safe => InvalidUpdateVersion: Invalid update version 2 for feature transaction.version. Can't downgrade to a newer version.
             feature transaction.version 3 upgrade => InvalidUpdateVersion: Invalid update version 3 for feature transaction.version. Local controller 1 only supports versions 0-2
             feature none 1 upgrade => InvalidUpdateVersion: Invalid update version 1 for feature none. Local controller 1 does not support this feature.
             feature metadata.version 32 safe => InvalidUpdateVersion: Unsupported metadata.version downgrade from 33 to 32. Refusing to perform the requested downgrade because it might delete metadata information.
             feature metadata.version 32 unsafe => InvalidUpdateVersion: Unsupported metadata.version downgrade from 33 to 32. Unsafe metadata downgrade is not supported in this version.
             feature metadata.version 33 upgrade",
        );
    }
}
