//! Apache Kafka 4.4.0 and its tools, fetched once from Maven Central and kept outside the checkout.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Result;

pub(crate) const VERSION: &str = "4.4.0";
const TOOLS_VERSION: &str = "4.3.1";
const CLUSTER_ID: &str = "sordini-bench-clusterA";

/// The heap and the collector of `kafka-server-start.sh`.
const SERVER_FLAGS: [&str; 8] = [
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

#[derive(Debug)]
pub(crate) struct Kafka {
    broker_jars: PathBuf,
    tools_jars: PathBuf,
}

impl Kafka {
    /// Fetches what is not in the cache yet (`SORDINI_BENCH_CACHE`, or a directory under the user's cache).
    pub(crate) fn fetch() -> Result<Kafka> {
        let cache = cache_dir()?;
        Ok(Kafka {
            broker_jars: fetch_jars("broker.xml", &cache.join(format!("kafka-{VERSION}")))?,
            tools_jars: fetch_jars(
                "tools.xml",
                &cache.join(format!("kafka-tools-{TOOLS_VERSION}")),
            )?,
        })
    }

    /// `kafka-storage.sh format`: Kafka does not start on an unformatted directory.
    pub(crate) fn format(&self, properties: &Path) -> Result<()> {
        let mut java = java(&self.broker_jars, &["-Xmx256m"]);
        java.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(properties);
        run(&mut java).map(drop)
    }

    pub(crate) fn broker(&self, properties: &Path) -> Command {
        let mut java = java(&self.broker_jars, &SERVER_FLAGS);
        java.arg("kafka.Kafka").arg(properties);
        java
    }

    /// A class of the tools jars, with a Java file of ours (in `bench/kafka`) compiled beside it.
    pub(crate) fn tool(&self, class: &str, companion: &str, scratch: &Path) -> Result<Command> {
        let classes = scratch.join("classes");
        let mut javac = Command::new("javac");
        javac
            .arg("-cp")
            .arg(self.tools_jars.join("*"))
            .arg("-d")
            .arg(&classes)
            .arg(source(companion));
        run(&mut javac)?;

        let mut java = Command::new("java");
        java.arg("-Xmx512m")
            .arg("-cp")
            .arg(format!(
                "{}:{}/*",
                classes.display(),
                self.tools_jars.display()
            ))
            .arg(class);
        Ok(java)
    }
}

/// The version of the Java that runs the opponent, in its own words.
pub(crate) fn java_version() -> Option<String> {
    let output = Command::new("java").arg("-version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().nth(1).map(|line| line.trim().to_owned())
}

fn java(jars: &Path, flags: &[&str]) -> Command {
    let mut java = Command::new("java");
    java.args(flags)
        .arg(format!(
            "-Dlog4j2.configurationFile={}",
            source("log4j2.yaml").display()
        ))
        .arg("-cp")
        .arg(jars.join("*"));
    java
}

fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("SORDINI_BENCH_CACHE") {
        return Ok(dir.into());
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let cache =
        cache.ok_or("no home directory: say where jars are kept with SORDINI_BENCH_CACHE")?;
    Ok(cache.join("sordini").join("bench"))
}

fn fetch_jars(pom: &str, dir: &Path) -> Result<PathBuf> {
    // Written last, so that an interrupted download is done again.
    let whole = dir.join(".whole");
    if !whole.exists() {
        eprintln!("fetching the jars of bench/kafka/{pom}");
        let mut maven = Command::new("mvn");
        maven.args([
            "-q",
            "-B",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            "-f",
        ]);
        maven
            .arg(source(pom))
            .arg(format!("-DoutputDirectory={}", dir.display()));
        run(&mut maven)?;
        fs::write(whole, "")?;
    }
    Ok(dir.to_owned())
}

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("kafka")
        .join(file)
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|err| format!("cannot run {program}: {err} (is it installed?)"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!(
            "{program} failed ({}): {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
        .into())
    }
}
