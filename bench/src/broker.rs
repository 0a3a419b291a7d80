//! A broker under test: one process of either side, on its own ports, in its own directory.

use std::{
    fmt, fs,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    unistd::Pid,
};

use crate::{Result, bench::Bench, probe, process};

/// What `ulimit -n` says for both, where the machine allows it: 10,000 partitions must do with it.
const OPEN_FILES: u64 = 20_000;
const START_LIMIT: Duration = Duration::from_secs(300);
const STOP_LIMIT: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    Sordini,
    Kafka,
}

impl Side {
    /// Below the ports the kernel gives to clients; controller and metrics are the next two.
    fn port(self) -> u16 {
        match self {
            Side::Sordini => 22500,
            Side::Kafka => 22510,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Sordini => "sordini",
            Side::Kafka => "kafka",
        })
    }
}

#[derive(Debug)]
pub(crate) struct Broker {
    process: Child,
    side: Side,
    dir: PathBuf,
    /// From just before the fork to the first ApiVersions answer.
    started_in: Duration,
}

impl Broker {
    /// Starts a broker in `dir`, where its data may already be, and waits until it answers.
    pub(crate) fn start(bench: &Bench, side: Side, dir: &Path) -> Result<Broker> {
        Broker::start_with(bench, side, dir, "")
    }

    /// The same with more lines in its `server.properties`.
    pub(crate) fn start_with(
        bench: &Bench,
        side: Side,
        dir: &Path,
        properties: &str,
    ) -> Result<Broker> {
        let more = properties;
        let port = side.port();
        if probe::connect(port).is_ok() {
            return Err(format!("port {port} is taken by another broker").into());
        }
        let properties = dir.join("server.properties");
        fs::write(&properties, server_properties(port, dir) + more)?;

        let mut command = match side {
            Side::Sordini => {
                let mut command = Command::new(&bench.sordini);
                command.arg(&properties);
                command
            }
            Side::Kafka => {
                if !dir.join("data/meta.properties").exists() {
                    bench.kafka.format(&properties)?;
                }
                bench.kafka.broker(&properties)
            }
        };
        let log = File::create(dir.join("log"))?;
        command
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let open_files = OPEN_FILES.min(most);
        // SAFETY: between fork and exec, both calls are a system call and nothing else.
        unsafe {
            command.pre_exec(move || {
                // A benchmark that is interrupted leaves no broker behind.
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                Ok(setrlimit(Resource::RLIMIT_NOFILE, open_files, open_files)?)
            });
        }

        let begin = Instant::now();
        let process = command
            .spawn()
            .map_err(|err| format!("cannot run {:?}: {err}", command.get_program()))?;
        let mut broker = Broker {
            process,
            side,
            dir: dir.to_owned(),
            started_in: Duration::ZERO,
        };
        while probe::connect(port).is_err() {
            if broker.process.try_wait()?.is_some() || begin.elapsed() > START_LIMIT {
                return Err(format!(
                    "{side} does not start; its log ends with\n{}",
                    broker.last_words()
                )
                .into());
            }
            thread::sleep(Duration::from_micros(200));
        }
        broker.started_in = begin.elapsed();
        if !process::listens(broker.pid(), port) {
            return Err(
                format!("another process than the one started answers on port {port}").into(),
            );
        }
        Ok(broker)
    }

    pub(crate) fn started_in(&self) -> Duration {
        self.started_in
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.side.port()
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Where its logs and checkpoints are.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where the files of a partition are.
    pub(crate) fn partition_dir(&self, topic: &str, partition: i32) -> PathBuf {
        self.data_dir().join(format!("{topic}-{partition}"))
    }

    /// What `work` returns, and the processor time the broker spent on it.
    pub(crate) fn cpu_time_of<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
        let before = process::cpu_time(self.pid())?;
        let done = work()?;
        Ok((done, process::cpu_time(self.pid())?.saturating_sub(before)))
    }

    /// SIGTERM, and wait: the clean stop.
    pub(crate) fn stop(mut self) -> Result<PathBuf> {
        kill(Pid::from_raw(i32::try_from(self.pid())?), Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while self.process.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(format!(
                    "{} does not stop; its log ends with\n{}",
                    self.side,
                    self.last_words()
                )
                .into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(self.dir.clone())
    }

    /// kill -9.
    pub(crate) fn kill(mut self) -> Result<PathBuf> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(self.dir.clone())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already gone after `stop` and `kill`; in every other case its row is over.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The same settings for both: a node that is broker and controller, Kafka's defaults for everything
/// that matters, no wait for other members in new groups, and a housekeeping that comes by often enough
/// to be part of what is measured.
fn server_properties(port: u16, dir: &Path) -> String {
    let controller = port + 1;
    let metrics = port + 2;
    let data = dir.join("data");
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.assignment.interval.ms=0
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=1000
sordini.metrics.listener=127.0.0.1:{metrics}
",
        data.display()
    )
}
