//! What a reviewer would otherwise have to repeat.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(dir: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut todo = vec![root().join(dir)];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// A path as it is written in the repository.
fn name(path: &Path) -> String {
    let name = path.strip_prefix(root()).expect("under the root");
    name.display().to_string()
}

const TEST_ONLY: &str = "#[cfg(test)]";

/// A file without the items that are there for tests only.
fn code(path: &Path) -> String {
    without_tests(&read(path))
}

/// Code that is formatted: an item ends with the first line that is not indented more than it and ends a statement or a
/// block.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start() != TEST_ONLY {
            code.push_str(line);
            code.push('\n');
            continue;
        }
        let indent = &line[..line.len() - TEST_ONLY.len()];
        for line in lines.by_ref() {
            let rest = line.get(indent.len()..).unwrap_or_default();
            if !rest.starts_with(' ') && rest.ends_with([';', '}']) {
                break;
            }
        }
    }
    code
}

/// The files of the modules that are there for tests only: their text, and of what they hold in turn.
fn test_modules(files: &[PathBuf]) -> Vec<PathBuf> {
    let declared = files.iter().flat_map(|path| {
        let text = read(path);
        let lines: Vec<&str> = text.lines().collect();
        let names = lines.windows(2).filter(|pair| pair[0] == TEST_ONLY);
        let names = names.filter_map(|pair| pair[1].strip_prefix("mod ")?.strip_suffix(';'));
        let dir = path.with_extension("");
        let names: Vec<PathBuf> = names.map(|name| dir.join(name)).collect();
        names
    });
    declared.collect()
}

/// The files of a directory that end up in the program.
fn sources(dir: &str) -> Vec<PathBuf> {
    let files = files_under(dir);
    let tests = test_modules(&files);
    let is_test = |path: &PathBuf| {
        let module = path.with_extension("");
        tests.iter().any(|test| module.starts_with(test))
    };
    files.into_iter().filter(|path| !is_test(path)).collect()
}

/// Where the program's sources are.
const SOURCES: [&str; 4] = ["protocol/src", "storage/src", "replication/src", "src"];

/// `ListOffsets` to `list_offsets`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (at, c) in name.chars().enumerate() {
        if c.is_uppercase() && 0 < at {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

#[test]
fn every_served_key_has_its_file_and_its_line_in_dispatch() {
    let dispatch = read(&root().join("src/server/dispatch.rs"));
    for (key, _) in protocol::versions::SERVED {
        let name = format!("{key:?}");
        let name = name.strip_suffix("Key").unwrap_or(&name);
        let file = root().join(format!("src/api/{}.rs", snake(name)));
        assert!(
            file.exists(),
            "{name} is served but {} is missing",
            file.display()
        );
        assert!(
            dispatch.contains(&format!("Req::{name}("))
                || dispatch.contains(&format!("Body::{name}(")),
            "{name} has no line in dispatch.rs"
        );
        let head = read(&file).lines().next().unwrap_or_default().to_owned();
        let key = *key as i16;
        assert!(
            head.starts_with(&format!("//! {name} (key {key})")),
            "{} should begin with `//! {name} (key {key})`, not `{head}`",
            file.display()
        );
    }
}

#[test]
fn only_the_edges_touch_sockets_and_files() {
    let sockets = ["TcpStream", "TcpListener", "UdpSocket"];
    for path in SOURCES.iter().flat_map(|dir| sources(dir)) {
        let (text, name) = (code(&path), name(&path));
        let may_connect = name.starts_with("src/server/")
            || name.starts_with("src/metrics")
            || name == "replication/src/peer.rs";
        for word in sockets.iter().filter(|_| !may_connect) {
            assert!(!text.contains(word), "{name} uses {word}");
        }
        if name.starts_with("storage/") && name != "storage/src/disk.rs" {
            assert!(
                !text.contains("fs::File") && !text.contains("std::fs"),
                "{name} uses files"
            );
            assert!(!text.contains("SystemTime::now"), "{name} reads the clock");
        }
    }
}

/// Whether a file says of itself that it is pure, or the table of coordinators in ARCHITECTURE.md says it.
fn is_pure(path: &Path) -> bool {
    const COORDINATORS: [&str; 10] = [
        "group.rs",
        "group/assignor",
        "group/classic",
        "group/consumer",
        "group/offsets",
        "group/protocols.rs",
        "group/record.rs",
        "timers.rs",
        "transaction.rs",
        "transaction/state.rs",
    ];
    let name = name(path);
    let text = read(path);
    let mut head = text.lines().take_while(|line| line.len() > 3);
    let coordinator = name.strip_prefix("src/coordinator/");
    name.starts_with("protocol/")
        || coordinator.is_some_and(|name| COORDINATORS.iter().any(|one| name.starts_with(one)))
        || head.any(|line| line.contains("(pure)") || line.contains(" Pure."))
}

#[test]
fn what_is_pure_neither_waits_nor_asks_for_the_time() {
    let mut count = 0;
    for path in SOURCES.iter().flat_map(|dir| sources(dir)) {
        if !is_pure(&path) {
            continue;
        }
        count += 1;
        let text = code(&path);
        for word in [
            "std::fs",
            "SystemTime",
            "Instant",
            "clock::",
            "thread::",
            "tokio",
            "Mutex",
            "RwLock",
        ] {
            assert!(
                !text.contains(word),
                "{} is pure and uses {word}",
                path.display()
            );
        }
    }
    assert!(70 < count, "{count}");
}

/// Lines that a file may have without its tests: more, and it is about two things.
const LINES_MAX: usize = 700;

/// A table of keys is one thing.
const LONGER: [&str; 1] = ["src/config/table.rs"];

#[test]
fn no_file_has_outgrown_its_reader() {
    for path in SOURCES.iter().flat_map(|dir| sources(dir)) {
        let (lines, name) = (code(&path).lines().count(), name(&path));
        assert!(
            lines <= LINES_MAX || LONGER.contains(&&*name),
            "{name} has {lines} lines without its tests"
        );
    }
}

#[test]
fn a_module_is_a_file_of_its_name_beside_its_directory() {
    for path in ["bench/src"]
        .iter()
        .chain(&SOURCES)
        .flat_map(|dir| files_under(dir))
    {
        assert!(
            !path.ends_with("mod.rs"),
            "{}: call it after the module, beside the directory",
            path.display()
        );
    }
}

#[test]
fn what_is_for_tests_only_is_left_out_and_nothing_else() {
    let text = "\
use a;
#[cfg(test)]
use b;
fn c() {}
#[cfg(test)]
mod tests;
#[cfg(test)]
#[derive(Debug)]
struct D {
    e: E,
}
impl F {
    fn g() {}

    #[cfg(test)]
    fn h(
        i: I,
    ) -> J {
        k();
    }

    fn l() {}
}
#[cfg(test)]
mod tests {
    fn m() {
    }
}
fn n() {}
";
    let kept = "\
use a;
fn c() {}
impl F {
    fn g() {}


    fn l() {}
}
fn n() {}
";
    assert_eq!(without_tests(text), kept);
}

#[test]
fn crates_use_only_what_is_below_them() {
    let forbidden = [
        (
            "protocol/Cargo.toml",
            &["storage", "replication", "tokio"][..],
        ),
        (
            "storage/Cargo.toml",
            &["replication", "tokio", "kafka-protocol"][..],
        ),
        ("replication/Cargo.toml", &["metrics"][..]),
    ];
    for (file, names) in forbidden {
        let text = read(&root().join(file));
        for name in names {
            let uses = text.lines().any(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with([' ', '.', '=']))
            });
            assert!(!uses, "{file} depends on {name}");
        }
    }
}

#[test]
fn no_test_sleeps_and_no_code_is_left_for_later() {
    let words = [
        "to".to_owned() + "do!(",
        "unimple".to_owned() + "mented!(",
        "FIX".to_owned() + "ME",
    ];
    for dir in [
        "protocol",
        "storage",
        "replication",
        "src",
        "tests",
        "bench",
    ] {
        for path in files_under(dir) {
            let text = read(&path);
            for word in &words {
                assert!(!text.contains(word), "{}: {word}", path.display());
            }
            let is_test = path.components().any(|part| part.as_os_str() == "tests");
            let sleeps = "thread::sl".to_owned() + "eep";
            assert!(
                !is_test || !text.contains(&sleeps),
                "{} sleeps",
                path.display()
            );
        }
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let known: Vec<&str> = sordini::metrics::list::ALL
        .iter()
        .map(|metric| metric.name)
        .collect();
    let dashboard = read(&root().join("grafana/dashboards/sordini.json"));
    let words = dashboard.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let asked = words.filter(|word| {
        let mut prefixes = ["kafka_", "sordini_", "process_"].iter();
        prefixes.any(|prefix| word.starts_with(prefix))
    });
    let mut count = 0;
    for word in asked {
        let summary = ["_sum", "_count"].map(|suffix| word.strip_suffix(suffix));
        let there =
            known.contains(&word) || summary.iter().flatten().any(|name| known.contains(name));
        assert!(there, "the dashboard asks for {word}");
        count += 1;
    }
    assert!(20 < count, "{count}");
}
