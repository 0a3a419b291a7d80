//! What a tool prints: answers on standard output, complaints on standard error.

#![allow(clippy::print_stdout, reason = "this is where the tools speak")]

use std::io::{self, BufWriter, Stderr, Stdout, Write};

use super::Failure;

/// Standard output behind a buffer, and standard error.
///
/// Answers are flushed before a complaint is written, so that the two stay in order where they go to one terminal.
#[derive(Debug)]
pub(super) struct Console {
    out: BufWriter<Stdout>,
    err: Stderr,
}

impl Console {
    pub(super) fn new() -> Console {
        Console {
            out: BufWriter::new(io::stdout()),
            err: io::stderr(),
        }
    }

    /// Prints a line of the answer.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Prints bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|err| failed(&err))
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|err| failed(&err))
    }

    /// Prints a line on standard error.
    pub(super) fn complain(&mut self, text: &str) {
        // Nobody is left to tell when neither can be written to.
        let _ = self.out.flush();
        let _ = self.err.write_all(format!("{text}\n").as_bytes());
    }
}

fn failed(err: &io::Error) -> Failure {
    match err.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Refused(format!("cannot write to standard output: {err}")),
    }
}
