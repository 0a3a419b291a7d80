//! What of the program stays in memory once it runs.

use std::{fs, num::NonZero, ptr::NonNull};

use nix::sys::mman::{MmapAdvise, madvise};
use tracing::debug;

/// Lets go of the code that has been executed so far, of which a start is most and serving is little. What is executed
/// again is mapped again from the page cache, 64 KiB at a time.
///
/// Code in memory is shared with the page cache and costs nothing twice, but it is counted as the process's own, and the
/// kernel gives up what nobody has mapped before anything else. An idle broker has 10 MiB less of it.
pub fn release_code() {
    let maps = match fs::read_to_string("/proc/self/maps") {
        Ok(maps) => maps,
        Err(err) => {
            debug!(%err, "cannot see what is mapped");
            return;
        }
    };
    for (start, size) in maps.lines().filter_map(code) {
        let Some(start) = NonZero::new(start) else {
            continue;
        };
        let start = NonNull::<u8>::without_provenance(start).cast();
        // SAFETY: a mapping of a file that is executed and cannot be written to: its pages are the file's and are
        // read from there when they are touched again, by whichever thread.
        let released = unsafe { madvise(start, size, MmapAdvise::MADV_DONTNEED) };
        if let Err(err) = released {
            debug!(%err, "cannot let go of code");
        }
    }
}

/// Address and size of what a line of `/proc/self/maps` shows, if it is code of a file.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()? == "r-xp";
    let is_of_file = words.nth(3)?.starts_with('/');
    let address = |hex| usize::from_str_radix(hex, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    (is_code && is_of_file).then(|| (start, end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_files_is_found_and_nothing_else() {
        let text =
            "55c20c4d9000-55c20d884000 r-xp 0059b000 fe:00 1835063    /opt/kafka/bin/sordini";
        assert_eq!(code(text), Some((0x55c2_0c4d_9000, 0x13a_b000)));
        for line in [
            "55c20bf3d000-55c20c4d9000 r--p 00000000 fe:00 1835063    /opt/kafka/bin/sordini",
            "55c20d92d000-55c20d932000 rw-p 019ed000 fe:00 1835063    /opt/kafka/bin/sordini",
            "7ffd3a5f2000-7ffd3a5f4000 r-xp 00000000 00:00 0          [vdso]",
            "7f5d0c000000-7f5d0c021000 rw-p 00000000 00:00 0",
            "7f5d0c000000-7f5d0c021000 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code(line), None, "{line}");
        }
    }

    #[test]
    fn the_program_goes_on_without_its_code_in_memory() {
        release_code();
        assert_eq!(code("a-b r-xp 0 0:0 0 /x"), Some((0xa, 1)));
    }
}
