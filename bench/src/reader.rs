//! A consumer in a process of its own that must not disturb the clients whose latency is taken.
//!
//! It runs when nobody else wants a processor, and shares no memory map with them: a thread of the lowest priority that
//! holds the lock of its process's memory map while it waits for a processor makes every thread of that process wait.

use std::{
    env,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{Result, broker::Broker, client, kafka, quiet};

/// The option by which this program is such a reader; it takes the broker's address, the topic and how many records.
pub(crate) const OPTION: &str = "read";

/// Reads that many records of partition 0 of a topic and returns how long it took from the first to the last.
pub(crate) fn read_in_background(broker: &Broker, topic: &str, records: u64) -> Result<Duration> {
    let mut reader = Command::new(env::current_exe()?);
    reader
        .arg(format!("--{OPTION}"))
        .args([&broker.address(), topic, &records.to_string()])
        .stdin(Stdio::null());
    let printed = kafka::run(&mut reader)?;
    Ok(Duration::from_micros(printed.trim().parse()?))
}

/// What that process does: it prints microseconds.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [address, topic, records] = arguments else {
        return Err(format!("--{OPTION} takes an address, a topic and a number of records").into());
    };
    quiet::give_way()?;
    let elapsed = client::consume(address, topic, records.parse()?)?;
    println!("{}", elapsed.as_micros());
    Ok(())
}
