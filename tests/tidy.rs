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

/// The part of a file that is not its tests.
fn code(path: &Path) -> String {
    let text = read(path);
    text.split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .to_owned()
}

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
    for dir in ["protocol/src", "storage/src", "replication/src", "src"] {
        for path in files_under(dir) {
            let text = code(&path);
            let name = path
                .strip_prefix(root())
                .expect("under the root")
                .display()
                .to_string();
            let may_connect = name.starts_with("src/server/")
                || name.starts_with("src/metrics")
                || name == "replication/src/peer.rs";
            for word in sockets.iter().filter(|_| !may_connect) {
                assert!(!text.contains(word), "{name} uses {word}");
            }
            let pure = name.starts_with("protocol/");
            for word in [
                "std::fs",
                "SystemTime::now",
                "Instant::now",
                "thread::spawn",
            ] {
                assert!(
                    !pure || !text.contains(word),
                    "{name} is pure and uses {word}"
                );
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
