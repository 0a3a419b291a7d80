//! `sordini dump-log` on files that Apache Kafka's own tool has read too: every line that comes of it.

use std::{path::PathBuf, process::Command};

/// The files, and in `transcript.txt` what Kafka's tool prints for them.
fn files() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/dump_log")
}

#[test]
fn every_kind_of_file_is_shown_as_by_kafkas_tool() {
    let transcript = include_str!("dump_log/transcript.txt");
    let mut commands = transcript.split("\n$ ");
    // What stands in front of the first one.
    commands.next();
    let mut count = 0;
    for command in commands {
        let (flags, printed) = command.split_once('\n').expect("a line");
        let (printed, said): (Vec<&str>, Vec<&str>) = printed
            .trim_end()
            .lines()
            .partition(|line| !line.starts_with("2> "));
        let (code, out, err) = dump_log(flags);
        assert_eq!(lines(&out), printed, "$ {flags}\n{err}");
        let said: Vec<&str> = said.iter().map(|line| &line[3..]).collect();
        assert_eq!(lines(&err), said, "$ {flags}");
        assert_eq!(code, 0, "$ {flags}");
        count += 1;
    }
    assert_eq!(count, 11);
}

#[test]
fn what_cannot_be_read_is_said_in_one_line() {
    let log = "codecs/00000000000000000000.log";
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let zeros = write("00000000000000000000.log", &[0; 100]);
    let old = write(
        "00000000000000000007.log",
        &[&[0; 11][..], &[20], &[0; 30]].concat(),
    );
    let snapshot = write("00000000000000000001.snapshot", &[0, 9, 0, 0]);
    let index = write("00000000000000000007.index", &[0, 0, 0, 1, 0, 0, 1, 0, 0]);
    for (flags, want, code) in [
        (
            format!("--files nowhere/{}", &log[7..]),
            "No such file or directory",
            1,
        ),
        (String::new(), "Missing required argument \"[files]\"", 1),
        (
            format!("--files {zeros}"),
            "Found record size 0 smaller than minimum record overhead (14)",
            1,
        ),
        (
            format!("--files {old}"),
            "a message of format 0, which is not read here",
            1,
        ),
        (
            format!("--files {snapshot}"),
            "the snapshot's version is unknown",
            0,
        ),
        (
            format!("--files {index}"),
            "There is no whole batch at position 256",
            1,
        ),
        (
            format!("--index-sanity-check --files {index}"),
            "found 9 bytes which is neither positive nor a multiple of 8",
            1,
        ),
        (
            format!("--offsets-decoder --files {log}"),
            "at offset 1 using the specified decoder (message had a missing key)",
            1,
        ),
        (
            "--files codecs/notes.log".to_owned(),
            "is not named after an offset",
            1,
        ),
    ] {
        let (exit, _, err) = dump_log(&flags);
        assert!(err.contains(want), "$ {flags}: {err}");
        assert_eq!(exit, code, "$ {flags}");
    }
}

/// Exit code, standard output and standard error.
fn dump_log(flags: &str) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sordini"))
        .arg("dump-log")
        .args(flags.split_whitespace())
        .current_dir(files())
        .output()
        .expect("the program runs");
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("text");
        text.replace(&files().display().to_string(), "DIR")
    };
    let code = output.status.code().unwrap_or(-1);
    (code, text(output.stdout), text(output.stderr))
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}
