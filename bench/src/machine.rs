//! The machine and the programs, as far as a reader needs them to judge the figures: no names, no paths.

use std::{env, fs, path::Path, process::Command};

use crate::{bench::Bench, broker::Side, kafka};

pub(crate) fn describe(bench: &Bench) -> String {
    let kernel = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut lines = vec![
        format!("- {} cores, {}", cores(), processor()),
        format!("- {} GiB of memory", memory_gib()),
        format!("- Linux {}", kernel.trim()),
        format!(
            "- Apache Kafka {} on {}",
            kafka::VERSION,
            kafka::java_version().unwrap_or_default()
        ),
        format!("- librdkafka {}", rdkafka::util::get_rdkafka_version().1),
    ];
    if bench.sides.contains(&Side::Sordini) {
        lines.push(format!("- sordini {}", sordini()));
    }
    lines.join("\n")
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn processor() -> String {
    let info = read("/proc/cpuinfo").unwrap_or_default();
    field(&info, "model name")
        .unwrap_or("of an unknown model")
        .to_owned()
}

fn memory_gib() -> u64 {
    let info = read("/proc/meminfo").unwrap_or_default();
    let kib =
        field(&info, "MemTotal").and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    // What the kernel keeps for itself is missing from the total: round to the next GiB.
    kib.unwrap_or(0).div_ceil(1 << 20)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The commit of the checkout, if that is what was built and measured, else what the program says of itself.
fn sordini() -> String {
    if let Some(program) = env::var_os("SORDINI") {
        let said = kafka::run(Command::new(program).arg("--version")).unwrap_or_default();
        let version = said.trim().trim_start_matches("sordini ");
        return format!("{version}, built elsewhere");
    }
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")))
        .args(["rev-parse", "--short", "HEAD"]);
    kafka::run(&mut git).map_or_else(
        |_| "of an unknown commit".to_owned(),
        |commit| commit.trim().to_owned(),
    )
}
