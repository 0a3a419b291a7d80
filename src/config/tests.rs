use super::{settings::Setting, *};

#[test]
fn a_node_that_is_told_nothing_serves_plaintext_on_9092_from_the_working_directory() {
    let config = load("", &[], &[]).expect("a configuration");
    assert_eq!(config.node_id, 1);
    assert_eq!(config.log_dirs, [PathBuf::from("./data")]);
    assert_eq!(config.metadata_log_dir, PathBuf::from("./data"));
    assert_eq!(addresses(&config.listeners), "PLAINTEXT://:9092");
    assert_eq!(
        addresses(&config.advertised_listeners),
        "PLAINTEXT://localhost:9092"
    );
    assert_eq!(config.metrics_listener, "0.0.0.0:9404".parse().ok());
    assert_eq!(config.warnings(), [""; 0]);
}

/// As in the image: whoever sets anything has to say everything that differs from Kafka's own defaults.
#[test]
fn what_is_built_in_counts_only_while_nothing_is_set() {
    let config = load("", &["KAFKA_NODE_ID=7"], &[]).expect("a configuration");
    assert_eq!(config.node_id, 7);
    assert_eq!(config.log_dirs, [PathBuf::from("/tmp/kafka-logs")]);
    let config = load("num.partitions=3", &[], &[]).expect("a configuration");
    assert_eq!(config.log_dirs, [PathBuf::from("/tmp/kafka-logs")]);
    let config = load(
        "",
        &["KAFKA_HEAP_OPTS=-Xmx1g", "KAFKA_HOME=/opt/kafka"],
        &["num.partitions=3"],
    );
    let config = config.expect("a configuration");
    assert_eq!(config.log_dirs, [PathBuf::from("./data")]);
    assert_eq!(config.num_partitions, 3);
}

#[test]
fn the_environment_goes_over_the_file_and_an_override_over_both() {
    let file = "num.partitions=2\nfetch.max.bytes=2048\nbroker.rack=a";
    let environment = [
        "KAFKA_NUM_PARTITIONS=3",
        "KAFKA_FETCH_MAX_BYTES=3072",
        "CLUSTER_ID=abc",
    ];
    let config = load(file, &environment, &["num.partitions=4"]).expect("a configuration");
    assert_eq!(config.num_partitions, 4);
    assert_eq!(config.fetch_max_bytes, 3072);
    assert_eq!(config.broker_rack.as_deref(), Some("a"));
    assert_eq!(config.cluster_id.as_deref(), Some("abc"));
    let origins: Vec<String> = config
        .effective()
        .iter()
        .filter_map(|(name, value, origin)| Some(format!("{name}={value} {}", (*origin)?)))
        .collect();
    assert_eq!(
        origins,
        [
            "broker.id=1 built in",
            "broker.rack=a server.properties:3",
            "fetch.max.bytes=3072 env KAFKA_FETCH_MAX_BYTES",
            "node.id=1 built in",
            "num.partitions=4 --override",
            "process.roles=broker,controller built in",
        ]
    );
}

/// What the Java Testcontainers module sets, which names no voters and listeners with dashes.
#[test]
fn a_testcontainers_environment_starts_one_node() {
    let config = load(
        "",
        &[
            "CLUSTER_ID=4L6g3nShT-eMCtK--X86sw",
            "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://localhost:32801,BROKER://a1b2:9093,TC-0://kafka:19092",
            "KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS=0",
            "KAFKA_INTER_BROKER_LISTENER_NAME=BROKER",
            "KAFKA_LISTENERS=PLAINTEXT://:9092,BROKER://:9093,CONTROLLER://:9094,TC-0://:19092",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=BROKER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TC-0:PLAINTEXT",
            "KAFKA_LOG_FLUSH_INTERVAL_MESSAGES=9223372036854775807",
            "KAFKA_NODE_ID=1",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS=1",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR=1",
            "KAFKA_PROCESS_ROLES=broker,controller",
        ],
        &[],
    )
    .expect("a configuration");
    assert_eq!(
        addresses(&config.listeners),
        "PLAINTEXT://:9092 BROKER://:9093 TC-0://:19092"
    );
    assert_eq!(
        addresses(&config.controller_listeners),
        "CONTROLLER://:9094"
    );
    let advertised = &config.advertised_controller_listeners[0];
    assert!(
        !advertised.host.is_empty() && advertised.port == 9094,
        "{advertised:?}"
    );
    assert_eq!(
        addresses(&config.advertised_listeners),
        "PLAINTEXT://localhost:32801 BROKER://a1b2:9093 TC-0://kafka:19092"
    );
    assert_eq!(config.inter_broker_listener_name, "BROKER");
}

#[test]
fn listeners_follow_what_the_environment_advertises() {
    let config = load(
        "",
        &["KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://broker:19092"],
        &[],
    );
    assert_eq!(
        addresses(&config.expect("a configuration").listeners),
        "PLAINTEXT://0.0.0.0:19092"
    );
}

#[test]
fn older_names_and_units_are_understood() {
    let config = load(
        "broker.id=3\nlog.dir=/a\nlog.retention.minutes=2\nlog.roll.hours=1",
        &[],
        &[],
    );
    let config = config.expect("a configuration");
    assert_eq!(config.node_id, 3);
    assert_eq!(config.log_dirs, [PathBuf::from("/a")]);
    let topic = config.topic(&BTreeMap::new());
    assert_eq!(topic.log.retention_ms, 120_000);
    assert_eq!(topic.log.segment_ms, 3_600_000);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    refused(
        "log.retention.ms=x\nlisteners=SSL://:9093\nauthorizer.class.name=org.example.Authorizer",
        &["KAFKA_NUM_PARTITIONS=0"],
        &["process.roles=broker"],
        "Invalid value x for configuration log.retention.ms: Not a number of type LONG (set by server.properties:1; \
         allowed: a whole number of -9223372036854775808 to 9223372036854775807)
         Invalid value 0 for configuration num.partitions: Value must be at least 1 (set by env \
         KAFKA_NUM_PARTITIONS; allowed: a whole number of 1 to 2147483647)
         Invalid value SSL://:9093 for configuration listeners: SSL speaks SSL, and only PLAINTEXT is served (set \
         by server.properties:2)
         Invalid value org.example.Authorizer for configuration authorizer.class.name: there is no authorizer \
         here yet, and without one everything is allowed (set by server.properties:3)
         Invalid value broker for configuration process.roles: a node is broker and controller here; a node with \
         one role is not supported yet (set by --override)",
    );
    refused(
        "principal.builder.class=org.example.Builder\nclient.quota.callback.class=org.example.Quotas\n\
         create.topic.policy.class.name=org.example.Policy\nalter.config.policy.class.name=org.example.Policy\n\
         remote.log.storage.system.enable=true",
        &[],
        &[],
        "Invalid value org.example.Policy for configuration alter.config.policy.class.name: classes cannot be \
         loaded here, and what it forbids would be allowed (set by server.properties:4)
         Invalid value org.example.Quotas for configuration client.quota.callback.class: classes cannot be loaded \
         here, and what it limits would be without limits (set by server.properties:2)
         Invalid value org.example.Policy for configuration create.topic.policy.class.name: classes cannot be \
         loaded here, and what it forbids would be allowed (set by server.properties:3)
         Invalid value org.example.Builder for configuration principal.builder.class: classes cannot be loaded \
         here, and everybody would be somebody else (set by server.properties:1)
         Invalid value true for configuration remote.log.storage.system.enable: there is no tiered storage here, \
         and what is only there would be missing from its topics (set by server.properties:5)",
    );
    refused(
        "listeners=A://:1",
        &[],
        &[],
        "Invalid value A://:1 for configuration listeners: No security protocol defined for listener A (set by \
         server.properties:1)",
    );
    refused(
        "node.id=1\ncontroller.quorum.voters=1@a:1,2@b:1",
        &[],
        &[],
        "Invalid value 1@a:1,2@b:1 for configuration controller.quorum.voters: node 1 must be the only voter; \
         several controllers are not supported yet (set by server.properties:2)",
    );
}

#[test]
fn a_secret_is_not_shown_where_it_is_wrong_or_listed() {
    let config = load("ssl.keystore.password=hunter2", &[], &[]).expect("a configuration");
    assert!(!format!("{:?}", config.effective()).contains("hunter2"));
    let entry = config
        .describe_broker()
        .into_iter()
        .find(|entry| entry.name == "ssl.keystore.password");
    let entry = entry.expect("a described key");
    assert!(entry.is_sensitive && entry.value.is_none());
    assert!(entry.synonyms.iter().all(|synonym| synonym.value.is_none()));
}

#[test]
fn whoever_writes_down_kafkas_defaults_is_not_refused() {
    let builder = "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder";
    let file = format!(
        "principal.builder.class={builder}\ncreate.topic.policy.class.name=\n\
         remote.log.storage.system.enable=false"
    );
    assert!(load(&file, &[], &[]).is_ok());
}

#[test]
fn unknown_and_idle_keys_are_warned_of() {
    let config = load(
        "num.io.threads=4\nzookeeper.connect=a:2181\nnum.partitions=1\n\
         group.consumer.session.timeout.ms=46000\ngroup.consumer.min.session.timeout.ms=1000",
        &[],
        &[],
    );
    assert_eq!(
        config.expect("a configuration").warnings(),
        [
            "unknown configuration key zookeeper.connect (server.properties:2), ignored",
            "configuration keys that have no effect here: num.io.threads",
        ]
    );
}

#[test]
fn dynamic_values_go_over_static_ones_and_a_brokers_own_over_the_clusters() {
    let config =
        load("message.max.bytes=1000\nlog.retention.ms=5000", &[], &[]).expect("a configuration");
    let cluster = map(&[("message.max.bytes", "2000"), ("log.retention.ms", "6000")]);
    let broker = map(&[("message.max.bytes", "3000")]);
    let config = config
        .with_dynamic(&cluster, &broker)
        .expect("a configuration");
    let topic = config.topic(&BTreeMap::new());
    assert_eq!(
        (topic.max_message_bytes, topic.log.retention_ms),
        (3000, 6000)
    );

    let own = config.topic(&map(&[
        ("max.message.bytes", "4000"),
        ("cleanup.policy", "compact,delete"),
    ]));
    assert_eq!(own.max_message_bytes, 4000);
    assert!(own.log.compact && own.log.delete);
    assert!(!config.topic(&map(&[("cleanup.policy", "")])).log.delete);

    let back = config
        .with_dynamic(&BTreeMap::new(), &BTreeMap::new())
        .expect("a configuration");
    assert_eq!(back.topic(&BTreeMap::new()).max_message_bytes, 1000);
}

#[test]
fn dynamic_keys_that_do_nothing_are_known() {
    let limit = "replica.alter.log.dirs.io.max.bytes.per.second";
    let config = load("num.io.threads=4", &[], &[]).expect("a configuration");
    assert_eq!(config.idle_dynamic(), [""; 0]);
    let cluster = map(&[("num.io.threads", "4"), ("log.retention.ms", "6000")]);
    let broker = map(&[(limit, "1"), ("num.io.threads", "5"), ("nobody.knows", "1")]);
    let config = config.with_dynamic(&cluster, &broker);
    let config = config.expect("a configuration");
    assert_eq!(config.idle_dynamic(), ["num.io.threads", limit]);
}

#[test]
fn the_defaults_of_topics_are_those_of_the_log() {
    let config = load("", &[], &[]).expect("a configuration");
    assert_eq!(
        config.topic(&BTreeMap::new()).log,
        storage::config::Config::default()
    );
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn addresses(listeners: &[Listener]) -> String {
    let addresses: Vec<String> = listeners.iter().map(Listener::to_string).collect();
    addresses.join(" ")
}

#[track_caller]
fn refused(file: &str, environment: &[&str], overrides: &[&str], want: &str) {
    let got = load(file, environment, overrides)
        .expect_err("a refusal")
        .to_string();
    let want: Vec<&str> = want.lines().map(str::trim).collect();
    assert_eq!(got.lines().collect::<Vec<_>>(), want);
}

/// A configuration of the text of a `server.properties`, `NAME=value` variables and overrides.
fn load(file: &str, environment: &[&str], overrides: &[&str]) -> Result<Config, Error> {
    let pairs = |words: &[&str]| -> Vec<(String, String)> {
        let pair = |word: &&str| {
            word.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        words.iter().filter_map(pair).collect()
    };
    let file = properties::parse(file).expect("readable properties");
    let setting = |property: properties::Property| {
        let origin = Origin::File {
            path: PathBuf::from("server.properties"),
            line: property.line,
        };
        (property.key, Setting::new(&property.value, origin))
    };
    Config::of(
        file.into_iter().map(setting).collect(),
        &pairs(environment),
        &pairs(overrides),
    )
}
