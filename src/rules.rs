//! What the controller must know about configuration keys, answered from the table in [`crate::config`].

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use replication::{
    cluster::{Resource, ResourceKind},
    controller::config::ConfigRules,
    error::{Reason, Refusal},
};

use crate::config::{Config, Kind, Refused};

pub(crate) struct Rules {
    /// In force now: some limits are the broker's own keys.
    config: Arc<ArcSwap<Config>>,
}

impl Rules {
    pub(crate) fn new(config: Arc<ArcSwap<Config>>) -> Self {
        Self { config }
    }
}

impl ConfigRules for Rules {
    fn validate(
        &self,
        resource: &Resource,
        proposed: &BTreeMap<String, String>,
        existing: &BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        let config = self.config.load();
        let checked = match resource.kind {
            ResourceKind::Topic => config.check_topic(proposed),
            ResourceKind::Broker if resource.name.is_empty() => {
                config.check_broker_defaults(proposed, existing)
            }
            ResourceKind::Broker => config.check_broker(proposed, existing),
            ResourceKind::Group => config.check_group(proposed),
            ResourceKind::ClientMetrics => config.check_client_metrics(proposed),
        };
        checked.map_err(|refused| match refused {
            Refused::InvalidConfig(message) => Refusal::new(Reason::InvalidConfig, message),
            Refused::InvalidRequest(message) => Refusal::new(Reason::InvalidRequest, message),
        })
    }

    fn is_list(&self, kind: ResourceKind, name: &str) -> bool {
        Config::key(kind, name).is_some_and(|key| key.kind == Kind::List)
    }

    fn default_value(&self, kind: ResourceKind, name: &str) -> Option<String> {
        let config = self.config.load();
        let entries = match kind {
            ResourceKind::Topic => config.describe_topic(&BTreeMap::new()),
            ResourceKind::Broker => config.describe_broker(),
            ResourceKind::Group => config.describe_group(&BTreeMap::new()),
            ResourceKind::ClientMetrics => config.describe_client_metrics(&BTreeMap::new()),
        };
        entries.into_iter().find(|entry| entry.name == name)?.value
    }
}
