//! Brokers: who is registered, and who may serve (pure).
//!
//! A broker registers anew each time it starts, under a new incarnation id, and gets an epoch: the
//! offset its registration was decided at. Registered it is fenced, seen by clients but not serving,
//! until it says that it has caught up.

use protocol::records::metadata::{
    BrokerEndpoint, BrokerFeature, BrokerRegistrationChangeRecord, MetadataRecord,
    RegisterBrokerRecord, UnregisterBrokerRecord,
};
use storage::properties::encode_uuid;
use uuid::Uuid;

use super::{Decision, Scene, leaders};
use crate::{
    cluster::{Broker, ClusterImage, Endpoint, METADATA_VERSION},
    error::{Reason, Refusal},
};

/// Directory ids up to this one mean something else.
const RESERVED_DIRECTORIES: u128 = 100;

/// A range of levels of a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportedFeature {
    pub name: String,
    pub min: i16,
    pub max: i16,
}

/// What a broker says when it comes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub broker_id: i32,
    pub cluster_id: String,
    /// Made up anew by each start of the process.
    pub incarnation_id: Uuid,
    pub endpoints: Vec<Endpoint>,
    pub features: Vec<SupportedFeature>,
    pub rack: Option<String>,
    pub log_dirs: Vec<Uuid>,
    /// The epoch it had when it last stopped in good order, -1 if it did not.
    pub previous_epoch: i64,
    /// It has nothing to catch up with and serves from the start: a broker with its controller in
    /// the same process.
    pub ready: bool,
}

/// Registers a broker and answers with its epoch.
pub fn register(
    scene: &mut Scene<'_>,
    registration: &Registration,
) -> Decision<Result<i64, Refusal>> {
    match check(scene.image, registration) {
        Err(refusal) => Decision::refused(Err(refusal)),
        Ok(()) => registered(scene, registration),
    }
}

fn check(image: &ClusterImage, registration: &Registration) -> Result<(), Refusal> {
    let invalid = |message: String| Refusal::new(Reason::InvalidRegistration, message);
    if *registration.cluster_id != *image.cluster_id {
        return Err(Refusal::new(
            Reason::InconsistentClusterId,
            format!(
                "Expected cluster ID {}, but got cluster ID {}",
                image.cluster_id, registration.cluster_id
            ),
        ));
    }
    if registration.log_dirs.is_empty() {
        return Err(invalid("No directories specified in request".to_owned()));
    }
    for (at, directory) in registration.log_dirs.iter().enumerate() {
        if directory.as_u128() < RESERVED_DIRECTORIES {
            return Err(invalid("Reserved directory ID in request".to_owned()));
        }
        if registration.log_dirs[..at].contains(directory) {
            return Err(invalid("Duplicate directory ID in request".to_owned()));
        }
        let other = image.brokers.values().find(|broker| {
            broker.id != registration.broker_id && broker.log_dirs.contains(directory)
        });
        if let Some(other) = other {
            return Err(invalid(format!(
                "Broker {} is already registered with directory {}",
                other.id,
                encode_uuid(*directory)
            )));
        }
    }
    if registration
        .features
        .iter()
        .all(|feature| feature.name != METADATA_VERSION)
    {
        return Err(invalid(
            "Request features do not contain 'metadata.version'".to_owned(),
        ));
    }
    for (name, finalized) in &image.features {
        // A broker that does not name a feature can do without it only.
        let (min, max) = registration
            .features
            .iter()
            .find(|feature| feature.name == *name)
            .map_or((0, 0), |feature| (feature.min, feature.max));
        if !(min..=max).contains(finalized) {
            return Err(Refusal::new(
                Reason::UnsupportedVersion,
                format!(
                    "Unable to register because the broker does not support finalized version \
                     {finalized} of {name}. The broker wants a version between {min} and {max}, \
                     inclusive."
                ),
            ));
        }
    }
    Ok(())
}

fn registered(
    scene: &mut Scene<'_>,
    registration: &Registration,
) -> Decision<Result<i64, Refusal>> {
    let id = registration.broker_id;
    let before = scene.image.brokers.get(&id);
    let amended = before.filter(|broker| broker.incarnation_id == registration.incarnation_id);
    let epoch = amended.map_or(scene.next_offset(), |broker| broker.epoch);

    let mut records = Vec::new();
    let killed = before.is_some_and(|broker| broker.epoch != registration.previous_epoch);
    if amended.is_none() && killed {
        records.extend(leaders::after_kill(scene, id));
    }
    records.push(MetadataRecord::RegisterBroker(RegisterBrokerRecord {
        broker_id: id,
        incarnation_id: registration.incarnation_id,
        broker_epoch: epoch,
        end_points: registration
            .endpoints
            .iter()
            .map(|endpoint| BrokerEndpoint {
                name: endpoint.name.clone(),
                host: endpoint.host.clone(),
                port: endpoint.port,
                security_protocol: endpoint.security_protocol,
            })
            .collect(),
        features: registration
            .features
            .iter()
            .map(|feature| BrokerFeature {
                name: feature.name.clone(),
                min_supported_version: feature.min,
                max_supported_version: feature.max,
            })
            .collect(),
        rack: registration.rack.clone(),
        fenced: amended.is_none_or(|broker| broker.fenced),
        in_controlled_shutdown: amended.is_some_and(|broker| broker.in_controlled_shutdown),
        log_dirs: registration.log_dirs.clone(),
        ..RegisterBrokerRecord::default()
    }));
    // Who may lead depends on what the records so far say about who has everything.
    let mut image = scene.image.clone();
    replay(&mut image, &records);
    let lost =
        leaders::after_directory_failure(&scene_of(&image, scene), id, &registration.log_dirs);
    replay(&mut image, &lost);
    records.extend(lost);
    if registration.ready && amended.is_none_or(|broker| broker.fenced) {
        records.push(fencing(id, epoch, UNFENCE));
        records.extend(leaders::after_arrival(&scene_of(&image, scene), id));
    }
    Decision {
        records,
        answer: Ok(epoch),
    }
}

fn replay(image: &mut ClusterImage, records: &[MetadataRecord]) {
    for record in records {
        // What cannot be replayed here cannot be proposed either, and is refused there.
        let _ = image.replay(image.offset + 1, record);
    }
}

/// The same, on another image.
fn scene_of<'a>(image: &'a ClusterImage, scene: &'a mut Scene<'_>) -> Scene<'a> {
    Scene {
        image,
        rules: scene.rules,
        node_id: scene.node_id,
        dice: &mut *scene.dice,
    }
}

/// Lets a registered broker serve, and gives it the partitions that waited for it.
pub fn unfence(scene: &Scene<'_>, id: i32, epoch: i64) -> Decision<Result<(), Refusal>> {
    decide(scene.image, id, epoch, |broker| {
        if !broker.fenced {
            return Vec::new();
        }
        let mut records = vec![fencing(id, epoch, UNFENCE)];
        records.extend(leaders::after_arrival(scene, id));
        records
    })
}

/// Stops clients from using a broker, and others take over what it led.
pub fn fence(scene: &Scene<'_>, id: i32, epoch: i64) -> Decision<Result<(), Refusal>> {
    decide(scene.image, id, epoch, |broker| {
        if broker.fenced {
            return Vec::new();
        }
        let mut records = leaders::after_departure(scene, id);
        records.push(fencing(id, epoch, FENCE));
        records
    })
}

/// A broker wants to stop: what it leads moves to others before it does.
pub fn begin_controlled_shutdown(
    scene: &Scene<'_>,
    id: i32,
    epoch: i64,
) -> Decision<Result<(), Refusal>> {
    decide(scene.image, id, epoch, |broker| {
        if broker.in_controlled_shutdown {
            return Vec::new();
        }
        let change = BrokerRegistrationChangeRecord {
            broker_id: id,
            broker_epoch: epoch,
            in_controlled_shutdown: 1,
            ..BrokerRegistrationChangeRecord::default()
        };
        let mut records = vec![MetadataRecord::BrokerRegistrationChange(change)];
        records.extend(leaders::after_departure(scene, id));
        records
    })
}

/// Forgets a broker that is not coming back.
pub fn unregister(scene: &Scene<'_>, id: i32) -> Decision<Result<(), Refusal>> {
    let Some(broker) = scene.image.brokers.get(&id) else {
        return Decision::refused(Err(Refusal::new(
            Reason::BrokerIdNotRegistered,
            format!("Broker ID {id} is not currently registered"),
        )));
    };
    // This process is broker and controller: what forgets the broker that runs leaves nobody who could serve, and the
    // broker would not hear of it. A real controller does as it is told; its broker is another process, which says so.
    if id == scene.node_id && !broker.fenced {
        return Decision::refused(Err(Refusal::new(
            Reason::InvalidRequest,
            format!("Broker {id} is running, and only one that is gone can be unregistered"),
        )));
    }
    let mut records = leaders::after_departure(scene, id);
    records.push(MetadataRecord::UnregisterBroker(UnregisterBrokerRecord {
        broker_id: id,
        broker_epoch: broker.epoch,
    }));
    Decision {
        records,
        answer: Ok(()),
    }
}

/// A request by a broker is from the incarnation that is registered.
pub(super) fn check_epoch(image: &ClusterImage, id: i32, epoch: i64) -> Result<(), Refusal> {
    let stale = |message| Err(Refusal::new(Reason::StaleBrokerEpoch, message));
    match image.brokers.get(&id) {
        None => stale(format!("No broker registration found for broker id {id}")),
        Some(broker) if broker.epoch != epoch => stale(format!(
            "Expected broker epoch {}, but got broker epoch {epoch}",
            broker.epoch
        )),
        Some(_) => Ok(()),
    }
}

const FENCE: i8 = 1;
const UNFENCE: i8 = -1;

fn fencing(broker_id: i32, broker_epoch: i64, fenced: i8) -> MetadataRecord {
    MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChangeRecord {
        broker_id,
        broker_epoch,
        fenced,
        ..BrokerRegistrationChangeRecord::default()
    })
}

fn decide(
    image: &ClusterImage,
    id: i32,
    epoch: i64,
    records: impl FnOnce(&Broker) -> Vec<MetadataRecord>,
) -> Decision<Result<(), Refusal>> {
    match (check_epoch(image, id, epoch), image.brokers.get(&id)) {
        (Ok(()), Some(broker)) => Decision {
            records: records(broker),
            answer: Ok(()),
        },
        (Ok(()), None) => unreachable!("check_epoch found the broker"),
        (Err(refusal), _) => Decision::refused(Err(refusal)),
    }
}

#[cfg(test)]
mod tests {
    use crate::controller::script::check;

    #[test]
    fn a_broker_that_is_gone_is_told_so() {
        check(
            "unregister 1 => BrokerIdNotRegistered: Broker ID 1 is not currently registered
             broker 1
             create orders 0:1 => 1x1
             unregister 1 => InvalidRequest: Broker 1 is running, and only one that is gone can be unregistered
             show orders-0 => leader 1 epoch 0 isr [1]
             fence 1
             unregister 1
             show orders-0 => leader -1 epoch 1 isr [] eligible [1] last [1]
             fence 1 => StaleBrokerEpoch: No broker registration found for broker id 1",
        );
    }

    #[test]
    fn a_clean_restart_changes_no_leader() {
        check(
            "broker 1
             create orders 0:1 => 1x1
             restart 1
             show orders-0 => leader 1 epoch 0 isr [1]",
        );
    }

    #[test]
    fn producer_ids_come_in_blocks_to_who_is_registered() {
        check(
            "broker 1
             ids 1 => 0..1000
             ids 1 => 1000..2000
             ids 2 => StaleBrokerEpoch: No broker registration found for broker id 2",
        );
    }
}
