//! How a controller takes over: what a new term and a new cluster begin with.

use std::path::Path;

use protocol::records::metadata::{
    BeginTransactionRecord, ConfigRecord, ControllerEndpoint, ControllerFeature,
    EndTransactionRecord, FeatureLevelRecord, MetadataRecord, RegisterControllerRecord,
};
use storage::disk::Disk;
use uuid::Uuid;

use super::{
    ControllerConfig, checkpoint::Checkpoint, features::ELIGIBLE_LEADER_REPLICAS,
    metadata_log::leader_change, proposer::Draft,
};
use crate::{
    cluster::{METADATA_VERSION, Resource},
    error::Error,
};

pub(super) fn decide(
    config: &ControllerConfig,
    disk: &dyn Disk,
    dir: &Path,
    draft: &mut Draft,
) -> Result<(), Error> {
    if draft.image.epoch < draft.epoch {
        let voters: Vec<i32> = config.voters.keys().copied().collect();
        draft.add(&leader_change(config.node_id, &voters, draft.now))?;
    }
    if draft.image.feature(METADATA_VERSION) == 0 {
        let beginning = beginning(config, disk, dir)?;
        let metadata_version = level(&beginning, METADATA_VERSION);
        draft.add_records_of(metadata_version, &bootstrap(config, beginning))?;
    }
    let registration = registration(config);
    let known = draft.image.controllers.get(&config.node_id);
    let is_known = known.is_some_and(|known| {
        known.end_points == registration.end_points && known.features == registration.features
    });
    if !is_known {
        draft.add_records(&[MetadataRecord::RegisterController(registration)])?;
    }
    Ok(())
}

/// What `kafka-storage format` left to begin with, or what is configured. Earlier versions of it put only who votes into the
/// metadata log's first checkpoint, and the features beside the log.
fn beginning(
    config: &ControllerConfig,
    disk: &dyn Disk,
    dir: &Path,
) -> Result<Vec<MetadataRecord>, Error> {
    let first = Checkpoint::list(disk, dir)?
        .into_iter()
        .find(|checkpoint| checkpoint.end_offset == 0);
    let beside = Checkpoint::bootstrap(disk, config.directory.path())?;
    for formatted in first.iter().chain(&beside) {
        let records = formatted.records(disk)?;
        if level(&records, METADATA_VERSION) != 0 {
            return Ok(records);
        }
    }
    Ok(features(config))
}

fn level(beginning: &[MetadataRecord], name: &str) -> i16 {
    let levels = beginning.iter().filter_map(|record| match record {
        MetadataRecord::FeatureLevel(feature) if feature.name == name => {
            Some(feature.feature_level)
        }
        _ => None,
    });
    levels.last().unwrap_or(0)
}

/// The first records of a cluster, as Apache Kafka's controller writes them. An old metadata.version has no
/// transactions, and then they come without.
fn bootstrap(config: &ControllerConfig, beginning: Vec<MetadataRecord>) -> Vec<MetadataRecord> {
    let tracks_eligible_leaders = 0 < level(&beginning, ELIGIBLE_LEADER_REPLICAS);
    let mut records = vec![MetadataRecord::BeginTransaction(BeginTransactionRecord {
        name: Some("Bootstrap records".to_owned()),
    })];
    records.extend(beginning);
    if tracks_eligible_leaders {
        // Written down, because from here on the brokers' own configuration does not count.
        let everywhere = Resource::all_brokers();
        let value = config
            .rules
            .default_value(everywhere.kind, "min.insync.replicas");
        records.push(MetadataRecord::Config(ConfigRecord {
            resource_type: everywhere.kind.id(),
            resource_name: everywhere.name,
            name: "min.insync.replicas".to_owned(),
            value: Some(value.unwrap_or_else(|| "1".to_owned())),
        }));
    }
    records.push(MetadataRecord::EndTransaction(EndTransactionRecord {}));
    records
}

/// The metadata version first: it says how to read the others.
fn features(config: &ControllerConfig) -> Vec<MetadataRecord> {
    let mut features: Vec<_> = config
        .features
        .iter()
        .filter(|(_, level)| **level != 0)
        .collect();
    features.sort_by_key(|(name, _)| *name != METADATA_VERSION);
    features
        .into_iter()
        .map(|(name, level)| {
            MetadataRecord::FeatureLevel(FeatureLevelRecord {
                name: name.clone(),
                feature_level: *level,
            })
        })
        .collect()
}

fn registration(config: &ControllerConfig) -> RegisterControllerRecord {
    RegisterControllerRecord {
        controller_id: config.node_id,
        incarnation_id: Uuid::new_v4(),
        zk_migration_ready: false,
        end_points: config
            .endpoints
            .iter()
            .map(|endpoint| ControllerEndpoint {
                name: endpoint.name.clone(),
                host: endpoint.host.clone(),
                port: endpoint.port,
                security_protocol: endpoint.security_protocol,
            })
            .collect(),
        features: config
            .supported_features
            .iter()
            .map(|(name, (min, max))| ControllerFeature {
                name: name.clone(),
                min_supported_version: *min,
                max_supported_version: *max,
            })
            .collect(),
    }
}
