//! Log directories: which there are, and which of them are for what.

use std::path::PathBuf;

use super::settings::Reader;

pub(super) fn log_dirs(read: &mut Reader<'_>) -> Vec<PathBuf> {
    let older = read.list("log.dir");
    let dirs = read.list("log.dirs");
    let dirs = if dirs.is_empty() { older } else { dirs };
    dirs.iter().map(PathBuf::from).collect()
}

pub(super) fn metadata_log_dir(read: &mut Reader<'_>) -> PathBuf {
    match read.optional_text("metadata.log.dir") {
        Some(dir) => PathBuf::from(dir),
        None => log_dirs(read).into_iter().next().unwrap_or_default(),
    }
}

pub(super) fn cordoned_log_dirs(read: &mut Reader<'_>) -> Vec<PathBuf> {
    const KEY: &str = "cordoned.log.dirs";
    const ALL: &str = "*";
    let dirs = log_dirs(read);
    let cordoned = read.list(KEY);
    if cordoned == [ALL] {
        return dirs;
    }
    if cordoned.iter().any(|entry| entry == ALL) {
        let why = format!("When {KEY} is set to {ALL}, it must not contain other values");
        read.refuse_together(KEY, &why);
        return Vec::new();
    }
    // As they are written: `/a/` and `/a` compare as paths, and a real broker compares text.
    let is_missing = |entry: &&String| !dirs.iter().any(|dir| dir.as_os_str() == entry.as_str());
    let missing: Vec<&str> = cordoned
        .iter()
        .filter(is_missing)
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let why = format!(
            "All entries in {KEY} must be present in log.dirs or log.dir. Missing entries : {}",
            missing.join(", ")
        );
        read.refuse_together(KEY, &why);
    }
    cordoned.iter().map(PathBuf::from).collect()
}
