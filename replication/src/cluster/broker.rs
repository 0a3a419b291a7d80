//! A broker as the cluster knows it, and the records that say so.

use std::collections::BTreeMap;

use protocol::records::metadata::{
    BrokerEndpoint, BrokerFeature, BrokerRegistrationChangeRecord, RegisterBrokerRecord,
};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    /// Offset of the record that registered this incarnation.
    pub epoch: i64,
    pub incarnation_id: Uuid,
    pub endpoints: Vec<Endpoint>,
    /// Name to the range of levels it can live with.
    pub features: BTreeMap<String, (i16, i16)>,
    pub rack: Option<String>,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
    /// Directories it can use.
    pub log_dirs: Vec<Uuid>,
    /// Directories that take no new partitions; `None` where the metadata version has no word for it.
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub security_protocol: i16,
}

impl Broker {
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// Directories that take no new partitions.
    pub fn cordoned(&self) -> &[Uuid] {
        self.cordoned_log_dirs.as_deref().unwrap_or_default()
    }

    pub fn has_cordoned(&self, directory: Uuid) -> bool {
        self.cordoned().contains(&directory)
    }

    /// Does none of its directories take new partitions?
    pub fn is_cordoned(&self) -> bool {
        let is_one = |directory: &Uuid| self.has_cordoned(*directory);
        !self.log_dirs.is_empty() && self.log_dirs.iter().all(is_one)
    }

    /// The record's flags are -1 for "now false", 1 for "now true", 0 for "as it was".
    pub(super) fn change(&mut self, record: &BrokerRegistrationChangeRecord) {
        let changed = |flag: &mut bool, to: i8| {
            if to != 0 {
                *flag = 0 < to;
            }
        };
        changed(&mut self.fenced, record.fenced);
        changed(
            &mut self.in_controlled_shutdown,
            record.in_controlled_shutdown,
        );
        if !record.log_dirs.is_empty() {
            self.log_dirs = record.log_dirs.clone();
        }
        if let Some(cordoned) = &record.cordoned_log_dirs {
            self.cordoned_log_dirs = Some(cordoned.clone());
        }
    }
}

impl From<&RegisterBrokerRecord> for Broker {
    fn from(record: &RegisterBrokerRecord) -> Broker {
        Broker {
            id: record.broker_id,
            epoch: record.broker_epoch,
            incarnation_id: record.incarnation_id,
            endpoints: record
                .end_points
                .iter()
                .map(|e| Endpoint {
                    name: e.name.clone(),
                    host: e.host.clone(),
                    port: e.port,
                    security_protocol: e.security_protocol,
                })
                .collect(),
            features: record
                .features
                .iter()
                .map(|f| {
                    let range = (f.min_supported_version, f.max_supported_version);
                    (f.name.clone(), range)
                })
                .collect(),
            rack: record.rack.clone(),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            log_dirs: record.log_dirs.clone(),
            cordoned_log_dirs: record.cordoned_log_dirs.clone(),
        }
    }
}

impl From<&Broker> for RegisterBrokerRecord {
    fn from(broker: &Broker) -> RegisterBrokerRecord {
        RegisterBrokerRecord {
            broker_id: broker.id,
            incarnation_id: broker.incarnation_id,
            broker_epoch: broker.epoch,
            end_points: broker
                .endpoints
                .iter()
                .map(|e| BrokerEndpoint {
                    name: e.name.clone(),
                    host: e.host.clone(),
                    port: e.port,
                    security_protocol: e.security_protocol,
                })
                .collect(),
            features: broker
                .features
                .iter()
                .map(|(name, (min, max))| BrokerFeature {
                    name: name.clone(),
                    min_supported_version: *min,
                    max_supported_version: *max,
                })
                .collect(),
            rack: broker.rack.clone(),
            fenced: broker.fenced,
            in_controlled_shutdown: broker.in_controlled_shutdown,
            log_dirs: broker.log_dirs.clone(),
            cordoned_log_dirs: broker.cordoned_log_dirs.clone(),
            ..RegisterBrokerRecord::default()
        }
    }
}
