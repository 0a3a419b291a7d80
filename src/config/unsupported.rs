//! What is refused, because leaving it out in silence would be dangerous or because a single node cannot be it.

use replication::cluster::ResourceKind;

use super::{Config, listeners, settings::Reader};

pub(super) fn refuse(read: &mut Reader<'_>) {
    if !read.text("authorizer.class.name").is_empty() {
        read.refuse(
            "authorizer.class.name",
            "there is no authorizer here yet, and without one everything is allowed",
        );
    }
    for (name, why) in [
        (
            "alter.config.policy.class.name",
            "classes cannot be loaded here, and what it forbids would be allowed",
        ),
        (
            "client.quota.callback.class",
            "classes cannot be loaded here, and what it limits would be without limits",
        ),
        (
            "create.topic.policy.class.name",
            "classes cannot be loaded here, and what it forbids would be allowed",
        ),
        (
            "principal.builder.class",
            "classes cannot be loaded here, and everybody would be somebody else",
        ),
    ] {
        // Whoever writes down Kafka's default wants nothing else.
        let is_default = |text: &str| {
            Config::key(ResourceKind::Broker, name)
                .and_then(|key| key.default)
                .unwrap_or_default()
                == text
        };
        let class = read.text(name);
        if !class.is_empty() && !is_default(&class) {
            read.refuse(name, why);
        }
    }
    if read.boolean("remote.log.storage.system.enable") {
        read.refuse(
            "remote.log.storage.system.enable",
            "there is no tiered storage here, and what is only there would be missing from its topics",
        );
    }
    let roles = read.list("process.roles");
    if !roles.is_empty() && roles.len() < 2 {
        read.refuse(
            "process.roles",
            "a node is broker and controller here; a node with one role is not supported yet",
        );
    }
    let id = read.int("node.id");
    let voters = listeners::voters(read);
    if !voters.is_empty() && voters.iter().map(|voter| voter.id).ne([id]) {
        read.refuse(
            "controller.quorum.voters",
            &format!("node {id} must be the only voter; several controllers are not supported yet"),
        );
    }
    if 1 < read.list("controller.quorum.bootstrap.servers").len() {
        read.refuse(
            "controller.quorum.bootstrap.servers",
            "several controllers are not supported yet",
        );
    }
}
