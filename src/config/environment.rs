//! `KAFKA_*` environment variables as properties, the way the Apache image maps them.
//!
//! The prefix goes, the rest becomes lower case, `_` a dot; then three dots a dash and two an underscore. So
//! `KAFKA_LISTENER_NAME_TC___0_X` is `listener.name.tc-0.x`. A few names are meant for Java and are no properties.

const PREFIX: &str = "KAFKA_";

/// What the image's start script keeps for itself, as `kafka.docker.Constants` of 4.4.0 lists it.
const NOT_PROPERTIES: [&str; 11] = [
    "KAFKA_VERSION",
    "KAFKA_HEAP_OPTS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_OPTS",
    "KAFKA_JMX_OPTS",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_JMX_HOSTNAME",
];

/// The property this variable sets, if it is one that sets a property.
pub(super) fn property(variable: &str) -> Option<String> {
    let name = variable.strip_prefix(PREFIX)?;
    if name.is_empty() || NOT_PROPERTIES.contains(&variable) {
        return None;
    }
    Some(
        name.to_lowercase()
            .replace('_', ".")
            .replace("...", "-")
            .replace("..", "_"),
    )
}

/// What `KAFKA_LISTENERS` is when only `KAFKA_ADVERTISED_LISTENERS` was given: the same names and ports on
/// every interface.
pub(super) fn listeners_of(advertised: &str) -> String {
    let on_every_interface = |listener: &str| match listener.split_once("://") {
        Some((name, address)) => match address.rsplit_once(':') {
            Some((_, port)) => format!("{name}://0.0.0.0:{port}"),
            None => listener.to_owned(),
        },
        None => listener.to_owned(),
    };
    advertised
        .split(',')
        .map(on_every_interface)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers are those of `kafka.docker.KafkaDockerWrapper` of Kafka 4.4.0.
    #[test]
    fn variables_map_as_in_the_apache_image() {
        check("KAFKA_NODE_ID", Some("node.id"));
        check(
            "KAFKA_LISTENER_NAME_TC___0_SASL",
            Some("listener.name.tc-0.sasl"),
        );
        check("KAFKA_A__B", Some("a_b"));
        check("KAFKA_A____B", Some("a-.b"));
        check("KAFKA_A_____B", Some("a-_b"));
        check(
            "KAFKA_KAFKA_METRICS_REPORTERS",
            Some("kafka.metrics.reporters"),
        );
        check("KAFKA__FOO_", Some(".foo."));
        check(
            "KAFKA_SORDINI_METRICS_LISTENER",
            Some("sordini.metrics.listener"),
        );
        check("KAFKA_JMX_PORT", Some("jmx.port"));
        check("KAFKA_HEAP_OPTS", None);
        check("KAFKA_LOG4J_ROOT_LOGLEVEL", None);
        check("kafka_node_id", None);
        check("PATH", None);
    }

    #[test]
    fn listeners_follow_what_is_advertised() {
        assert_eq!(
            listeners_of("PLAINTEXT://localhost:9092,TC-0://broker:19092,V6://[::1]:9093"),
            "PLAINTEXT://0.0.0.0:9092,TC-0://0.0.0.0:19092,V6://0.0.0.0:9093"
        );
    }

    #[track_caller]
    fn check(variable: &str, want: Option<&str>) {
        assert_eq!(property(variable).as_deref(), want, "{variable}");
    }
}
