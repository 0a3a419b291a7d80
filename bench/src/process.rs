//! What the kernel knows about a process, from `/proc`.

use std::{fs, path::Path, time::Duration};

use nix::unistd::{SysconfVar, sysconf};

use crate::Result;

/// Processor time of all threads, those that have ended included.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may contain anything; the fields after it do not.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |field: usize| {
        fields
            .get(field)
            .and_then(|ticks| ticks.parse::<u64>().ok())
    };
    // utime and stime are fields 14 and 15 of the whole line, the name being the second.
    let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
        return Err(format!("/proc/{pid}/stat has an unknown form").into());
    };
    let per_second = sysconf(SysconfVar::CLK_TCK)?
        .and_then(|n| u32::try_from(n).ok())
        .unwrap_or(100);
    Ok(Duration::from_secs(user + system) / per_second)
}

/// Resident memory in KiB, the mapped part of files included.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    status_field(pid, "status", "VmRSS:")
}

/// Bytes the process has caused to be read from a disk, whether by read, sendfile or a page fault.
pub(crate) fn disk_read_bytes(pid: u32) -> Result<u64> {
    status_field(pid, "io", "read_bytes:")
}

fn status_field(pid: u32, file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("/proc/{pid}/{file} has no {name}").into())
}

/// Whether this very process listens on the port: a benchmark must not measure a stranger.
pub(crate) fn listens(pid: u32, port: u16) -> bool {
    let tables: String = ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok())
        .collect();
    let sockets: Vec<String> = tables
        .lines()
        .filter_map(|line| listener_inode(line, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    files.flatten().any(|file| {
        fs::read_link(file.path())
            .is_ok_and(|target| sockets.iter().any(|socket| target == Path::new(socket)))
    })
}

/// The socket in a line of `/proc/net/tcp`, if it listens on `port`.
fn listener_inode(line: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = fields.get(1)?.rsplit(':').next()?;
    let listens = *fields.get(3)? == LISTEN && u16::from_str_radix(local, 16) == Ok(port);
    listens.then(|| fields.get(9).copied()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_socket_table_gives_its_inode_only_for_a_listener_on_that_port() {
        let line = "   0: 0100007F:57E4 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1 0";
        assert_eq!(listener_inode(line, 22500), Some("4711"));
        assert_eq!(listener_inode(line, 22501), None);
        assert_eq!(listener_inode(&line.replace(" 0A ", " 01 "), 22500), None);
    }

    #[test]
    fn we_are_a_process_with_memory_and_without_that_port() {
        let me = std::process::id();
        assert!(resident_kib(me).expect("our own status") > 100);
        cpu_time(me).expect("our own stat");
        assert!(!listens(me, 1));
    }
}
