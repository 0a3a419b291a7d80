//! What Linux knows about this process, under the names every Prometheus client uses.

use std::fs;

use super::{Scrape, list};

pub(super) fn scrape(to: &mut Scrape<'_>) {
    if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
        scrape_stat(to, &stat);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        to.gauge(&list::PROCESS_OPEN_FILES, &[], files.count() as f64);
    }
    if let Ok((soft, _)) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
    {
        to.gauge(&list::PROCESS_OPEN_FILES_MAX, &[], soft as f64);
    }
}

fn scrape_stat(to: &mut Scrape<'_>, stat: &str) {
    // USER_HZ is 100 on every Linux that Rust runs on; the kernel scales to it.
    const TICKS_PER_SECOND: f64 = 100.0;
    // The name of the program is in brackets and may hold blanks and brackets itself.
    let Some((_, after)) = stat.rsplit_once(')') else {
        return;
    };
    let fields: Vec<&str> = after.split_whitespace().collect();
    // Counted as in proc(5), where the state, the first of these, is field 3.
    let field = |number: usize| {
        fields
            .get(number - 3)
            .and_then(|field| field.parse::<f64>().ok())
    };
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        to.counter(
            &list::PROCESS_CPU_SECONDS,
            &[],
            (user + system) / TICKS_PER_SECOND,
        );
    }
    if let Some(threads) = field(20) {
        to.gauge(&list::PROCESS_THREADS, &[], threads);
    }
    if let (Some(started), Some(booted)) = (field(22), boot_time()) {
        to.gauge(
            &list::PROCESS_START_TIME,
            &[],
            booted + started / TICKS_PER_SECOND,
        );
    }
    if let Some(bytes) = field(23) {
        to.gauge(&list::PROCESS_VIRTUAL_MEMORY, &[], bytes);
    }
    if let (Some(pages), Some(size)) = (field(24), page_size()) {
        to.gauge(&list::PROCESS_RESIDENT_MEMORY, &[], pages * size);
    }
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

fn page_size() -> Option<f64> {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(size as f64)
}
