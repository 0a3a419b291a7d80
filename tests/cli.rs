//! What `sordini` answers on the command line, by the program itself: text, and exit codes.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const CONFIGURATION_IS_WRONG: i32 = 3;
const A_DIRECTORY_CANNOT_BE_USED: i32 = 4;
const AN_ADDRESS_IS_TAKEN: i32 = 5;

#[test]
fn config_shows_every_value_and_where_it_came_from() {
    let file = Properties::new("num.partitions=2\nbroker.rack = a\n");
    let output = sordini(
        &["config", &file.path, "--override", "num.partitions=4"],
        &[("KAFKA_MESSAGE_MAX_BYTES", "2000")],
    );
    assert_eq!(output.status.code(), Some(0));
    shows(&output.stdout, "num.partitions=4  (--override)");
    shows(&output.stdout, &format!("broker.rack=a  ({}:2)", file.path));
    shows(
        &output.stdout,
        "message.max.bytes=2000  (env KAFKA_MESSAGE_MAX_BYTES)",
    );
    shows(&output.stdout, "fetch.max.bytes=57671680  (default)");
    shows(
        &output.stdout,
        "sordini.metrics.listener=0.0.0.0:9404  (default)",
    );
}

#[test]
fn without_file_and_environment_the_data_is_in_the_working_directory() {
    let output = sordini(&["config"], &[]);
    shows(&output.stdout, "log.dirs=./data  (built in)");
    shows(&output.stdout, "listeners=PLAINTEXT://:9092  (default)");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn every_wrong_value_is_named_before_anything_is_opened() {
    let file = Properties::new("num.partitions=0\nlog.retention.ms=x\nlog.dirs=/nowhere\n");
    let output = sordini(&[&file.path], &[]);
    assert_eq!(output.status.code(), Some(CONFIGURATION_IS_WRONG));
    assert_eq!(
        text(&output.stderr),
        format!(
            "error: Invalid value x for configuration log.retention.ms: Not a number of type LONG (set by {0}:2; \
             allowed: a whole number of -9223372036854775808 to 9223372036854775807)\n\
             error: Invalid value 0 for configuration num.partitions: Value must be at least 1 (set by {0}:1; \
             allowed: a whole number of 1 to 2147483647)\n",
            file.path
        )
    );
}

/// The old name of the number counts as long as nobody has used the new one.
#[test]
fn a_node_may_be_numbered_by_its_old_name() {
    let output = sordini(&["config", "--override", "broker.id=5"], &[]);
    assert_eq!(text(&output.stderr), "");
    shows(&output.stdout, "node.id=5  (--override)");
    shows(&output.stdout, "broker.id=5  (--override)");
    let both = ["--override", "broker.id=5", "--override", "node.id=6"];
    let output = sordini(&[&["config"][..], &both].concat(), &[]);
    assert_eq!(output.status.code(), Some(CONFIGURATION_IS_WRONG));
    assert!(text(&output.stderr).contains("node.id is 6, and broker.id must be the same"));
}

#[test]
fn unknown_keys_are_warned_of_by_name() {
    let file = Properties::new("nosuch.key=1\n");
    let output = sordini(&["config", &file.path], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stderr),
        format!(
            "warning: unknown configuration key nosuch.key ({}:1), ignored\n",
            file.path
        )
    );
}

#[test]
fn a_file_that_is_not_there_is_an_error_that_names_it() {
    let output = sordini(&["/nowhere/server.properties"], &[]);
    assert_eq!(output.status.code(), Some(CONFIGURATION_IS_WRONG));
    assert_eq!(
        text(&output.stderr),
        "error: cannot read /nowhere/server.properties: No such file or directory (os error 2)\n"
    );
}

#[test]
fn help_and_version_say_what_they_are_asked() {
    let help = sordini(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    for word in [
        "[server.properties]",
        "--override",
        "config",
        "Exit codes",
        "SORDINI_LOG",
    ] {
        assert!(text(&help.stdout).contains(word), "{word}");
    }
    let version = sordini(&["--version"], &[]);
    assert_eq!(
        text(&version.stdout),
        format!("sordini {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn an_override_without_a_value_is_a_wrong_command_line() {
    let output = sordini(&["--override", "num.partitions"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("key=value is expected"));
}

/// A database of the controller's once told its two hundred options as warnings.
#[test]
fn a_start_is_a_few_lines_and_none_of_them_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = broker_in(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = lines_of_start(&mut broker);
    assert!(said.len() < 10, "{said:#?}");
    assert!(!said.iter().any(|line| line.contains("WARN")), "{said:#?}");
}

/// The second node on a machine once did not start, for an address that nobody had asked for.
#[test]
fn a_default_address_for_metrics_that_is_taken_is_a_warning_and_one_that_was_asked_for_an_error() {
    // If this fails another has it, which is as good.
    let _taken = TcpListener::bind("127.0.0.1:9404");
    let dir = tempfile::tempdir().unwrap();
    let arguments = [
        "--override",
        &format!("log.dirs={}", dir.path().display()),
        "--override",
        "listeners=PLAINTEXT://127.0.0.1:0",
    ];
    let mut broker = Command::new(env!("CARGO_BIN_EXE_sordini"))
        .args(arguments)
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = lines_of_start(&mut broker);
    let warnings: Vec<&String> = said.iter().filter(|line| line.contains("WARN")).collect();
    assert!(
        matches!(*warnings, [one] if one.contains("0.0.0.0:9404") && one.contains("sordini.metrics.listener")),
        "{said:#?}"
    );

    let asked = ["--override", "sordini.metrics.listener=0.0.0.0:9404"];
    let output = sordini(&[&arguments[..], &asked].concat(), &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(AN_ADDRESS_IS_TAKEN), "{said}");
    assert!(
        said.contains("0.0.0.0:9404 (sordini.metrics.listener)"),
        "{said}"
    );
}

/// A container's first process hears of no signal that it does not ask for, and a start may take minutes.
#[test]
fn a_start_can_be_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = broker_in(dir.path()).stdout(Stdio::null()).spawn().unwrap();
    while !dir.path().join(".lock").exists() {
        assert_eq!(broker.try_wait().unwrap(), None);
    }
    let pid = Pid::from_raw(i32::try_from(broker.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    // Not by the signal.
    assert_eq!(broker.wait().unwrap().code(), Some(0));
}

/// It was told like any other failure, after which a supervisor starts the broker again, for ever.
#[test]
fn a_damaged_database_of_the_controller_is_a_directory_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let log_dirs = format!("log.dirs={}", dir.path().display());
    let arguments = [
        "--override",
        &log_dirs,
        "--override",
        "listeners=PLAINTEXT://127.0.0.1:0",
        "--override",
        "sordini.metrics.listener=",
    ];
    let mut broker = Command::new(env!("CARGO_BIN_EXE_sordini"))
        .args(arguments)
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(broker.stdout.take().unwrap()).lines();
    let running = lines
        .map_while(Result::ok)
        .find(|line| line.contains("RUNNING"));
    broker.kill().unwrap();
    broker.wait().unwrap();
    assert!(running.is_some(), "it starts");

    let current = dir.path().join("__cluster_metadata-0/raft/CURRENT");
    fs::write(current, "not a manifest").unwrap();
    let output = sordini(&arguments, &[]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("controller"));
}

/// Each is said with the exit code that tells a supervisor not to try again, and nothing in it is changed.
#[test]
fn a_directory_that_cannot_be_used_is_said_why() {
    const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";
    let meta = |version: i32, cluster: &str| {
        format!(
            "version={version}\nnode.id=1\ncluster.id={cluster}\ndirectory.id=riwMfNd6L9HO0GOxa0zNcw\n"
        )
    };
    let other = "5L6g3nShT-eMCtK--X86sw";
    let metas = [
        (
            "of another cluster",
            meta(1, other),
            vec![
                format!("cluster.id={other}"),
                format!("this node has {CLUSTER}"),
            ],
        ),
        (
            "of another node",
            meta(1, CLUSTER).replace("node.id=1", "node.id=7"),
            vec!["node.id=7, this node has 1".to_owned()],
        ),
        (
            "of a newer format",
            meta(2, CLUSTER),
            vec!["version 2".to_owned()],
        ),
        (
            "of a broker with ZooKeeper",
            "version=0\nbroker.id=1\n".to_owned(),
            vec!["version 0".to_owned(), "ZooKeeper".to_owned()],
        ),
        (
            "of one that says no version",
            "broker.id=1\n".to_owned(),
            vec!["version 0".to_owned(), "ZooKeeper".to_owned()],
        ),
    ];
    for (what, meta, words) in metas {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.properties");
        fs::write(&path, &meta).unwrap();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let path_shown = path.display().to_string();
        refuses(
            broker_in(dir.path()).env("CLUSTER_ID", CLUSTER),
            what,
            &[&words[..], &[&path_shown]].concat(),
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), meta, "{what}");
    }

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let file_shown = file.display().to_string();
    refuses(&mut broker_in(&file), "a file", &[&file_shown]);
    // Not for root either.
    let nowhere = Path::new("/proc/sordini");
    refuses(
        &mut broker_in(nowhere),
        "not writable",
        &["/proc/sordini", "No such file"],
    );
    let full = dir.path().join("full");
    let mut limited = Command::new("sh");
    let broker = broker_in(&full);
    limited
        .args(["-c", "ulimit -f 0; trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(broker.get_program())
        .args(broker.get_args())
        .env_clear();
    refuses(
        &mut limited,
        "full",
        &[&full.display().to_string(), "File too large"],
    );

    let mut holder = broker_in(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let is_held = lines
        .map_while(Result::ok)
        .any(|line| line.contains("RUNNING"));
    assert!(is_held, "it starts");
    let dir_shown = dir.path().display().to_string();
    refuses(
        &mut broker_in(dir.path()),
        "in use",
        &[&dir_shown, "locked by another process"],
    );
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// The broker does not start, for a data directory, and says all of this in one line.
#[track_caller]
fn refuses(broker: &mut Command, what: &str, words: &[&str]) {
    let mut broker = broker.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(broker.stdout.take().unwrap()).lines() {
        said.push(line.unwrap());
        if said.iter().any(|line| line.contains("RUNNING")) {
            broker.kill().unwrap();
            break;
        }
    }
    let code = broker.wait().unwrap().code();
    assert_eq!(code, Some(A_DIRECTORY_CANNOT_BE_USED), "{what}: {said:#?}");
    let has_all = |line: &String| words.iter().all(|word| line.contains(word));
    assert!(said.iter().any(has_all), "{what}: {words:?} in {said:#?}");
}

/// What a broker says until it runs; it is killed then.
#[track_caller]
fn lines_of_start(broker: &mut Child) -> Vec<String> {
    let lines = BufReader::new(broker.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    for line in lines.map_while(Result::ok).take(20) {
        let is_last = line.contains("Transitioning from RECOVERY to RUNNING");
        said.push(line);
        if is_last {
            break;
        }
    }
    broker.kill().unwrap();
    broker.wait().unwrap();
    assert!(
        said.last().is_some_and(|line| line.contains("RUNNING")),
        "{said:#?}"
    );
    said
}

/// A broker with its data in `dir`, on a port of its own.
fn broker_in(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sordini"));
    command
        .args(["--override", &format!("log.dirs={}", dir.display())])
        .args(["--override", "listeners=PLAINTEXT://127.0.0.1:0"])
        .args(["--override", "sordini.metrics.listener="])
        .env_clear();
    command
}

fn sordini(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sordini"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the program runs")
}

/// A `server.properties` that goes when the test does.
struct Properties {
    path: String,
    _directory: tempfile::TempDir,
}

impl Properties {
    fn new(text: &str) -> Properties {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("server.properties");
        fs::write(&path, text).expect("a file written");
        Properties {
            path: path.to_str().expect("a path in Unicode").to_owned(),
            _directory: directory,
        }
    }
}

#[track_caller]
fn shows(stdout: &[u8], line: &str) {
    let stdout = text(stdout);
    assert!(
        stdout.lines().any(|shown| shown == line),
        "no `{line}` in\n{stdout}"
    );
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}
