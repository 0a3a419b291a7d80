//! The command line's tools against a broker in this process: what is typed, and every line that comes of it.
//!
//! `tests/transcripts` holds what Apache Kafka's own tools print for the same commands. Where ours differ on purpose, a
//! comment there says so.
//!
//! ```text
//! $ topics @ --list        a command; @ is --bootstrap-server and the broker's address
//! < text                   a line on its standard input
//! orders                   a line on its standard output
//! 2> text                  a line on its standard error
//! = 1                      its exit code, if it is not 0
//! & consume @ ...          a command that goes on beside the next ones, until
//! ^                        all of those are told to stop
//! % name text              a file that commands find as DIR/name
//! ```
//!
//! Ids and ports that differ from run to run are shown as letters. While a command goes on beside it, another is run until it
//! prints what is expected: what the first one does takes its time.

mod common;

use std::{
    ffi::OsStr,
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use common::TestBroker;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, GroupId, consumer_group_heartbeat_request as heartbeat,
};

/// One partition to load, and members that need not wait for one another.
const SETTINGS: [(&str, &str); 2] = [
    ("offsets.topic.num.partitions", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
];

/// For how long a command is run again while others go on.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn topics() {
    check("topics.txt");
}

#[test]
fn configs() {
    check("configs.txt");
}

#[test]
fn records() {
    check("records.txt");
}

#[test]
fn groups() {
    check("groups.txt");
}

#[test]
fn members() {
    check("members.txt");
}

#[test]
fn cluster() {
    check("cluster.txt");
}

#[test]
fn offsets_and_elections() {
    check("offsets.txt");
}

#[test]
fn what_is_wrong_is_said_with_the_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    drop(listener);
    let list = ["topics", "--list", "--bootstrap-server", &address];
    let refused = format!("cannot connect to {address}: Connection refused");
    let (out, err, code) = run(&list, "");
    assert_eq!((err.as_str(), code), ("", 1));
    assert!(
        out.starts_with(&format!("Error while executing topic command : {refused}")),
        "{out}"
    );

    let dir = tempfile::tempdir().expect("a directory");
    let with = |properties: &str, more: &[&str]| {
        let file = dir.path().join("client.properties");
        std::fs::write(&file, properties).expect("a file written");
        let file = file.to_str().expect("a path in Unicode");
        run(&[&list[..], &["--command-config", file], more].concat(), "")
    };
    let (out, err, code) = with("default.api.timeout.ms=1000\n", &["--wait"]);
    assert!(
        err.starts_with(&refused) && err.ends_with("Trying again for 1000 ms.\n"),
        "{err}"
    );
    assert!(out.contains(&refused), "{out}");
    assert_eq!(code, 1);

    let (out, _, code) = with("security.protocol=SSL\n", &[]);
    assert!(
        out.contains("security.protocol=SSL is not spoken by these tools yet"),
        "{out}"
    );
    assert_eq!(code, 1);
}

#[test]
fn who_reads_and_writes_for_long_outlives_a_restart_of_the_broker() {
    let mut broker = TestBroker::start_with(&SETTINGS);
    broker.client().create_topic("orders", 1);
    let address = broker.address.to_string();
    let at = ["--bootstrap-server", &address, "--topic", "orders"];
    let start = |words: &[&str]| Going::start(&[words, &at].concat());
    let reader = start(&["consume", "--from-beginning"]);
    let member = start(&["consume", "--from-beginning", "--group", "readers"]);
    let mut writer = start(&["produce", "--sync"]);
    let mut careless = start(&["produce", "--sync", "--request-required-acks", "0"]);
    let both_read = |line: &str| {
        assert_eq!(reader.prints(), line);
        assert_eq!(member.prints(), line);
    };
    writer.types("before");
    both_read("before");
    careless.types("before, whether or not it is read");
    both_read("before, whether or not it is read");

    broker.stop();
    writer.types("while nobody is there");
    let said = writer.says();
    assert!(
        said.starts_with("Trying again: ") && said.contains(&address),
        "{said}"
    );
    let listeners = format!("PLAINTEXT://{address}");
    let again = [&SETTINGS[..], &[("listeners", &listeners)]].concat();
    let broker = broker.restart(&again);
    both_read("while nobody is there");
    writer.types("after");
    both_read("after");
    careless.types("at the end");
    both_read("at the end");

    // Each line was printed once, and nothing was lost.
    assert_eq!(writer.ends(), (String::new(), 0));
    assert_eq!(careless.ends(), (String::new(), 0));
    for reads in [reader, member] {
        terminate(&reads.child);
        assert_eq!(reads.ends(), (String::new(), 0));
    }
    drop(broker);
}

/// A tool that goes on, and is talked with meanwhile.
struct Going {
    child: Child,
    stdin: Option<ChildStdin>,
    printed: mpsc::Receiver<String>,
    said: mpsc::Receiver<String>,
}

impl Going {
    fn start(words: &[&str]) -> Going {
        let mut child = start(words, Stdio::piped);
        Going {
            stdin: child.stdin.take(),
            printed: lines_of(child.stdout.take().expect("its output")),
            said: lines_of(child.stderr.take().expect("its errors")),
            child,
        }
    }

    fn types(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// The next line on its standard output.
    #[track_caller]
    fn prints(&self) -> String {
        match self.printed.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(_) => panic!("it prints no more, and says {:?}", self.said.try_recv()),
        }
    }

    /// The next line on its standard error.
    #[track_caller]
    fn says(&self) -> String {
        self.said.recv_timeout(PATIENCE).expect("it says something")
    }

    /// Closes its input, so that it ends. What it has printed besides, and its exit code.
    fn ends(mut self) -> (String, i32) {
        self.stdin = None;
        let code = self.child.wait().expect("it ends").code();
        (self.printed.iter().collect(), code.unwrap_or(-1))
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        // It has ended unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

#[test]
fn a_directory_is_formatted_once_for_the_cluster_that_was_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("server.properties");
    let data = dir.path().join("data");
    std::fs::write(&file, format!("log.dirs={}\n", data.display())).expect("a file written");
    let file = file.to_str().expect("a path in Unicode");
    let (id, _, code) = run(&["storage", "random-uuid"], "");
    let id = id.trim();
    assert_eq!((id.len(), code), (22, 0));

    let format = ["storage", "format", "-t", id, "-c", file];
    let with = |more: &[&str]| run(&[&format[..], more].concat(), "");
    for (more, wrong) in [
        (["--release-version", "3.9"], "metadata.version at 3.9-IV0"),
        (["--release-version", "9"], "Unknown release version 9."),
        (["--feature", "share.version=1"], "share.version at 1"),
        (["--feature", "share.version"], "Can't parse feature=level"),
    ] {
        let (_, err, code) = with(&more);
        assert!(err.contains(wrong), "{err}");
        assert_eq!(code, 1);
    }
    // What a new cluster has anyway may be asked for.
    let (_, err, code) = with(&[
        "--no-initial-controllers",
        "--release-version",
        "4.4",
        "--feature",
        "transaction.version=2",
        "-f",
        "group.version=1",
    ]);
    assert_eq!((err.as_str(), code), ("", 0));
    let (_, err, code) = run(&format, "");
    assert!(
        err.contains("is already formatted. Use --ignore-formatted"),
        "{err}"
    );
    assert_eq!(code, 1);
    let (out, _, code) = run(&[&format[..], &["--ignore-formatted"]].concat(), "");
    assert_eq!(
        (out.as_str(), code),
        ("All of the log directories are already formatted.\n", 0)
    );

    let broker = TestBroker::start_in(dir, &[]);
    let address = broker.address.to_string();
    let (out, _, _) = run(
        &["cluster", "cluster-id", "--bootstrap-server", &address],
        "",
    );
    assert_eq!(out, format!("Cluster ID: {id}\n"));
}

#[test]
fn a_group_of_the_newer_protocol_is_shown_with_its_epochs() {
    let broker = TestBroker::start_with(&SETTINGS);
    let mut client = broker.client();
    client.create_topic("orders", 2);
    let address = broker.address.to_string();
    let describe = |view: &[&str]| {
        let words = ["groups", "--describe", "--group", "new"];
        let at = ["--bootstrap-server", &address];
        let (out, err, code) = run(&[&words[..], &at, view].concat(), "");
        assert_eq!((err.as_str(), code), ("", 0), "{out}");
        out.replace(&address, "ADDRESS")
    };
    let list = ["groups", "--list", "--type", "--state"];
    let at = ["--bootstrap-server", &address];
    // Whoever asks about a group makes the broker create the topic that keeps groups, and the tool waits for that.
    let (out, _, _) = run(
        &[&["groups", "--describe", "--group", "new"][..], &at].concat(),
        "",
    );
    assert!(out.contains("GroupIdNotFoundException"), "{out}");

    let since = Instant::now();
    let mut epoch = 0;
    let mut owned: Option<Vec<heartbeat::TopicPartitions>> = None;
    loop {
        assert!(since.elapsed() < PATIENCE, "the member gets no partitions");
        let answer = client.call(1, &beat(epoch, owned.as_deref()));
        if answer.error_code != 0 {
            continue;
        }
        epoch = answer.member_epoch;
        if let Some(assignment) = answer.assignment {
            let assigned = assignment.topic_partitions.into_iter().map(|topic| {
                heartbeat::TopicPartitions::default()
                    .with_topic_id(topic.topic_id)
                    .with_partitions(topic.partitions)
            });
            let assigned: Vec<_> = assigned.collect();
            let has_all = assigned.iter().any(|topic| topic.partitions.len() == 2);
            owned = Some(assigned);
            if has_all {
                client.call(1, &beat(epoch, owned.as_deref()));
                break;
            }
        }
    }

    let (out, _, _) = run(&[&list[..], &at].concat(), "");
    let row = out.lines().nth(1).unwrap_or_default();
    let row: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(row, ["new", "Consumer", "Stable"], "{out}");
    let words = |out: &str| -> Vec<String> {
        let row = out.lines().nth(2).unwrap_or_default();
        row.split_whitespace().map(str::to_owned).collect()
    };
    let members = words(&describe(&["--members", "--verbose"]));
    let epoch = epoch.to_string();
    let expected = [
        "new",
        MEMBER,
        "/127.0.0.1",
        "test",
        "2",
        &epoch,
        "orders:0,1",
        &epoch,
        "orders:0,1",
    ];
    assert_eq!(members, expected);
    let state = words(&describe(&["--state", "--verbose"]));
    let expected = [
        "new", "ADDRESS", "(1)", "uniform", "Stable", &epoch, &epoch, "1",
    ];
    assert_eq!(state, expected);
    let offsets = words(&describe(&[]));
    let expected = [
        "new",
        "orders",
        "0",
        "-",
        "0",
        "-",
        MEMBER,
        "/127.0.0.1",
        "test",
    ];
    assert_eq!(offsets, expected);
}

const MEMBER: &str = "a-member-of-the-newer-protocol";

fn beat(epoch: i32, owned: Option<&[heartbeat::TopicPartitions]>) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId("new".into()))
        .with_member_id(MEMBER.into())
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(vec![common::topic_name("orders")]))
        .with_topic_partitions(Some(owned.unwrap_or_default().to_vec()))
}

#[test]
fn the_images_scripts_run_the_tools_that_health_checks_look_for() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/bin");
    let program = Path::new(env!("CARGO_BIN_EXE_sordini"));
    let path = format!(
        "{}:{}",
        program.parent().expect("its directory").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let run = |script: &str, words: &[&str]| {
        let output = Command::new(scripts.join(script))
            .args(words)
            .env_clear()
            .env("PATH", &path)
            .stdin(Stdio::null())
            .output()
            .expect("the script runs");
        let said = format!("{script} {words:?}: {output:?}");
        assert!(output.status.success(), "{said}");
        said
    };
    for script in std::fs::read_dir(&scripts).expect("the scripts") {
        let name = script.expect("a script").file_name();
        run(name.to_str().expect("a name in Unicode"), &["--help"]);
    }
    let broker = TestBroker::start();
    let at = format!("localhost:{}", broker.address.port());
    let at = ["--bootstrap-server", &at];
    broker.client().create_topic("orders", 1);
    let listed = run("kafka-topics.sh", &[&at[..], &["--list"]].concat());
    assert!(listed.contains("orders"), "{listed}");
    run("kafka-topics.sh", &["--version"]);
    run(
        "kafka-topics.sh",
        &[&at[..], &["--list", "--wait"]].concat(),
    );
    run("kafka-features.sh", &["--wait", at[0], at[1], "describe"]);
    let versions = run("kafka-broker-api-versions.sh", &at);
    assert!(versions.contains("Metadata(3)"), "{versions}");
    run("kafka-cluster.sh", &["cluster-id", at[0], at[1]]);
    run("kafka-features.sh", &[at[0], at[1], "describe"]);
    run(
        "kafka-metadata-quorum.sh",
        &[at[0], at[1], "describe", "--status"],
    );
    run(
        "kafka-configs.sh",
        &[at[0], at[1], "--describe", "--entity-type", "brokers"],
    );
    run("kafka-consumer-groups.sh", &[at[0], at[1], "--list"]);
}

/// The broker that the tools ask: one in this process, or the one that `TRANSCRIPTS_BROKER` names, for a comparison with
/// a fresh Apache Kafka by hand.
struct Asked {
    address: String,
    data: String,
    _broker: Option<TestBroker>,
}

impl Asked {
    fn new() -> Asked {
        if let Ok(address) = std::env::var("TRANSCRIPTS_BROKER") {
            let data = std::env::var("TRANSCRIPTS_BROKER_DATA").unwrap_or("?".to_owned());
            return Asked {
                address,
                data,
                _broker: None,
            };
        }
        let broker = TestBroker::start_with(&SETTINGS);
        Asked {
            address: broker.address.to_string(),
            data: broker.dir.path().join("data").display().to_string(),
            _broker: Some(broker),
        }
    }
}

/// Runs a transcript, and compares it with itself.
#[track_caller]
fn check(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(file);
    let expected = std::fs::read_to_string(&path).expect("a transcript");
    let asked = Asked::new();
    // Files that the commands name are in their own directory.
    let dir = tempfile::tempdir().expect("a directory");
    let mut got = String::new();
    let mut beside = Beside(Vec::new());
    let mut lines = expected.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(command) = line.strip_prefix("& ") {
            let words = words(command, &asked, dir.path());
            beside.0.push(start(&words, Stdio::null));
            writeln!(got, "{line}").expect("memory");
            continue;
        }
        if line == "^" {
            beside.stop();
            writeln!(got, "{line}").expect("memory");
            continue;
        }
        if let Some(file) = line.strip_prefix("% ") {
            let (name, text) = file.split_once(' ').expect("a file's name and text");
            std::fs::write(dir.path().join(name), text.replace("\\n", "\n"))
                .expect("a file written");
            writeln!(got, "{line}").expect("memory");
            continue;
        }
        let Some(command) = line.strip_prefix("$ ") else {
            if line.is_empty() || line.starts_with("# ") {
                writeln!(got, "{line}").expect("memory");
            }
            continue;
        };
        writeln!(got, "{line}").expect("memory");
        let mut input = String::new();
        while let Some(typed) = lines.next_if(|line| line.starts_with('<')) {
            writeln!(got, "{typed}").expect("memory");
            input += typed.strip_prefix("< ").unwrap_or_default();
            input.push('\n');
        }
        // What follows is what is expected; comments and blank lines between commands are taken over above.
        let mut wanted = String::new();
        while let Some(line) =
            lines.next_if(|line| !line.starts_with(['$', '#', '%', '&', '^']) && !line.is_empty())
        {
            writeln!(wanted, "{line}").expect("memory");
        }
        let since = Instant::now();
        let outcome = || outcome(command, &input, &asked, dir.path());
        let mut last = outcome();
        while last != wanted && !beside.0.is_empty() && since.elapsed() < PATIENCE {
            last = outcome();
        }
        got += &last;
    }
    if got != expected {
        let diff = difference(&expected, &got);
        // For whoever writes a transcript: what the whole of it would be.
        if let Ok(dir) = std::env::var("TRANSCRIPTS_TO") {
            std::fs::write(Path::new(&dir).join(file), &got).expect("a file written");
        }
        panic!("{}:\n{diff}", path.display());
    }
}

/// Commands that go on beside others.
struct Beside(Vec<Child>);

impl Beside {
    /// Tells them to stop and waits until they have.
    fn stop(&mut self) {
        for child in &self.0 {
            terminate(child);
        }
        for mut child in self.0.drain(..) {
            child.wait().expect("it ends");
        }
    }
}

fn terminate(child: &Child) {
    // It may have ended by itself.
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -TERM {}", child.id())])
        .status();
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.stop();
    }
}

fn words(command: &str, asked: &Asked, dir: &Path) -> Vec<String> {
    let dir = dir.to_str().expect("a path in Unicode");
    let mut words = Vec::new();
    for word in split(command) {
        match word.as_str() {
            "@" => words.extend(["--bootstrap-server".to_owned(), asked.address.clone()]),
            _ => words.push(word.replace("DIR/", &format!("{dir}/"))),
        }
    }
    words
}

fn outcome(command: &str, input: &str, asked: &Asked, dir: &Path) -> String {
    let (out, err, code) = run(&words(command, asked, dir), input);
    let address = &asked.address;
    let dir = dir.to_str().expect("a path in Unicode");
    let mut text = String::new();
    for line in out.lines() {
        // A blank line would end the expectation.
        writeln!(text, "{}", if line.is_empty() { "~" } else { line }).expect("memory");
    }
    for line in err.lines() {
        writeln!(text, "2> {line}").expect("memory");
    }
    if code != 0 {
        writeln!(text, "= {code}").expect("memory");
    }
    let port = address.rsplit(':').next().unwrap_or_default();
    assert_eq!(
        port.len(),
        5,
        "tables are as wide as with a port of five digits"
    );
    let text = without_epochs(&text)
        .replace(port, "PPPPP")
        .replace(&asked.data, "DATA")
        .replace(dir, "DIR");
    [
        ("TopicId: ", 22),
        ("Cluster ID: ", 22),
        ("ClusterId:              ", 22),
        ("\"directoryId\": \"", 22),
        ("sordini-consume-", 36),
    ]
    .into_iter()
    .fold(text, |text, (before, size)| mask(&text, before, size))
}

/// How far the metadata log is depends on how fast a broker has started.
fn without_epochs(text: &str) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        match line.rsplit_once(" Epoch: ") {
            Some((before, _)) => writeln!(lines, "{before} Epoch: N"),
            None => writeln!(lines, "{line}"),
        }
        .expect("memory");
    }
    lines
}

/// Replaces the letters of an id after `before`.
fn mask(text: &str, before: &str, size: usize) -> String {
    let mut parts = text.split(before);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        masked += before;
        // A client's name may also stand alone, at the end of a line.
        let is_id = part.get(..size).is_some_and(|id| !id.contains([' ', '\n']));
        if is_id {
            masked += &"I".repeat(size);
        }
        masked += &part[if is_id { size } else { 0 }..];
    }
    masked
}

/// Words between blanks; what stands between single quotes is one.
fn split(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in command.split('\'').enumerate() {
        match at % 2 {
            1 => words.push(part.to_owned()),
            _ => words.extend(part.split_whitespace().map(str::to_owned)),
        }
    }
    words
}

fn start(words: &[impl AsRef<OsStr>], output: impl Fn() -> Stdio) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sordini"))
        .args(words)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(output())
        .stderr(output())
        .spawn()
        .expect("the program runs")
}

fn run(words: &[impl AsRef<OsStr>], input: &str) -> (String, String, i32) {
    let mut child = start(words, Stdio::piped);
    let mut stdin = child.stdin.take().expect("its input");
    // It may end without reading all of it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code().unwrap_or(-1),
    )
}

/// The lines around the first one that differs.
fn difference(expected: &str, got: &str) -> String {
    let (expected, got): (Vec<&str>, Vec<&str>) =
        (expected.lines().collect(), got.lines().collect());
    let same = expected
        .iter()
        .zip(&got)
        .take_while(|(a, b)| a == b)
        .count();
    let show = |lines: &[&str]| {
        let lines = lines.iter().skip(same.saturating_sub(3)).take(8);
        lines
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    };
    format!(
        "line {}, expected:\n{}but it is:\n{}",
        same + 1,
        show(&expected),
        show(&got)
    )
}
