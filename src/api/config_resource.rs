//! Things that have configs, as the wire names them, and what both ways of altering configs share.
//!
//! A broker checks what it alone can judge (does the client mean this broker? does it repeat itself?);
//! whether a name exists and a value will do is checked where the change is decided, by the controller.

use std::collections::{HashMap, HashSet};

use replication::{
    cluster::{Resource, ResourceKind},
    error::{self as controller, Reason, Refusal},
};

use super::error::Error;

pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;
pub(crate) const BROKER_LOGGER: i8 = 8;
pub(crate) const CLIENT_METRICS: i8 = 16;
pub(crate) const GROUP: i8 = 32;

/// How long the answer to a change waits for the change to take effect on this broker (ms). A real broker
/// does not wait: its clients see the old value for a moment.
pub(crate) const TAKING_EFFECT_MAX_MS: i32 = 30_000;

/// The one logger there is. Which parts of the broker say how much is set by `RUST_LOG`.
pub(crate) const ROOT_LOGGER: &str = "root";

/// One item of a request to alter configs.
pub(crate) struct Change<'a, T> {
    pub(crate) kind: i8,
    pub(crate) name: &'a str,
    /// Each config that is named, with its value.
    pub(crate) configs: Vec<(&'a str, Value<'a>)>,
    /// What the controller is asked to do; `Err` if that makes no sense.
    pub(crate) wanted: Result<T, Refusal>,
}

/// What a request says about one config.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    /// A value is needed, and may have been forgotten.
    Given(Option<&'a str>),
    /// The config goes back to its default.
    None,
}

/// Takes apart what is for the controller to decide, and what there is to answer already.
pub(crate) fn check<'a, T>(
    node_id: i32,
    changes: impl IntoIterator<Item = Change<'a, T>>,
) -> (Vec<(Resource, T)>, Outcomes) {
    let changes: Vec<Change<'a, T>> = changes.into_iter().collect();
    let mut counts: HashMap<(i8, &str), usize> = HashMap::new();
    for change in &changes {
        *counts.entry((change.kind, change.name)).or_default() += 1;
    }
    let mut accepted = Vec::new();
    let mut outcomes = Vec::new();
    for change in changes {
        let repeated = 1 < counts[&(change.kind, change.name)];
        let resource = change.resource(node_id, repeated);
        outcomes.push(
            match change.wanted.and_then(|wanted| Ok((resource?, wanted))) {
                Ok(change) => {
                    accepted.push(change);
                    // Until the controller has decided.
                    Ok(())
                }
                Err(refusal) => Err(refusal.into()),
            },
        );
    }
    (accepted, Outcomes(Ok(outcomes)))
}

/// One outcome for each change, or what kept all of them from being decided.
pub(crate) struct Outcomes(Result<Vec<Result<(), Error>>, Error>);

impl Outcomes {
    /// Puts what the controller says of the accepted changes in their places.
    pub(crate) fn decided(
        mut self,
        decided: Result<Vec<Result<(), Refusal>>, controller::Error>,
    ) -> Outcomes {
        let decided = match decided {
            Ok(decided) => decided,
            Err(err) => return Outcomes(Err(err.into())),
        };
        let open = self
            .0
            .iter_mut()
            .flatten()
            .filter(|outcome| outcome.is_ok());
        for (outcome, decided) in open.zip(decided) {
            *outcome = decided.map_err(Error::from);
        }
        self
    }

    /// Why the change at `index` was not made.
    pub(crate) fn refusal(&self, index: usize) -> Option<&Error> {
        match &self.0 {
            Ok(outcomes) => outcomes.get(index)?.as_ref().err(),
            Err(err) => Some(err),
        }
    }
}

impl<T> Change<'_, T> {
    /// What is to be altered, unless the broker itself sees why not.
    fn resource(&self, node_id: i32, repeated: bool) -> Result<Resource, Refusal> {
        if repeated {
            return invalid("Each resource must appear at most once.");
        }
        let mut seen = HashSet::new();
        if !self.configs.iter().all(|(name, _)| seen.insert(*name)) {
            return invalid("Error due to duplicate config keys");
        }
        let nulls = self
            .configs
            .iter()
            .filter(|(_, value)| matches!(value, Value::Given(None)));
        let nulls: Vec<&str> = nulls.map(|(name, _)| *name).collect();
        if !nulls.is_empty() {
            return invalid(&format!(
                "Null value not supported for : {}",
                nulls.join(", ")
            ));
        }
        let kind = match self.kind {
            TOPIC => ResourceKind::Topic,
            BROKER => ResourceKind::Broker,
            CLIENT_METRICS => ResourceKind::ClientMetrics,
            GROUP => ResourceKind::Group,
            BROKER_LOGGER => return Err(why_no_logger(node_id, self)),
            other => return invalid(&format!("Unknown resource type {other}")),
        };
        match (kind, self.name) {
            // The default of all brokers. Nothing else has such a default.
            (ResourceKind::Broker, "") => (),
            (ResourceKind::Broker, name) => {
                let id = node(name)?;
                if id != node_id {
                    return invalid(&format!(
                        "Unexpected broker id, expected {node_id}, but received {name}"
                    ));
                }
            }
            (ResourceKind::Topic, "") => {
                return invalid("Default topic resources are not allowed.");
            }
            (ResourceKind::Group, "") => {
                return invalid("Default group resources are not allowed.");
            }
            (ResourceKind::ClientMetrics, "") => {
                return invalid("Subscription name can't be empty");
            }
            _ => (),
        }
        Ok(Resource {
            kind,
            name: self.name.to_owned(),
        })
    }
}

fn node(name: &str) -> Result<i32, Refusal> {
    name.parse().map_err(|_| {
        let why = format!("Node id must be an integer, but it is: {name}");
        Refusal::new(Reason::InvalidRequest, why)
    })
}

/// How much is logged cannot be changed from outside; say so in the words a client may know.
fn why_no_logger<T>(node_id: i32, change: &Change<'_, T>) -> Refusal {
    match node(change.name) {
        Err(refusal) => return refusal,
        Ok(id) if id != node_id => {
            let why = format!("Unexpected node id. Expected {node_id}, but received {id}");
            return Refusal::new(Reason::InvalidRequest, why);
        }
        Ok(_) => (),
    }
    match change.configs.iter().find(|(name, _)| *name != ROOT_LOGGER) {
        Some((name, _)) => Refusal::new(
            Reason::InvalidConfig,
            format!("Logger {name} does not exist!"),
        ),
        None => Refusal::new(
            Reason::InvalidRequest,
            "The log level is set by the environment variable RUST_LOG when the broker starts",
        ),
    }
}

fn invalid<T>(why: &str) -> Result<T, Refusal> {
    Err(Refusal::new(Reason::InvalidRequest, why))
}
