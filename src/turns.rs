//! Long work on a thread that others wait for: every so often they have their turn.

/// A step takes some microseconds, so that others wait for less than a millisecond.
const STEPS_AT_ONCE: usize = 64;

/// How far the work has come since others had their turn.
#[derive(Debug, Default)]
pub(crate) struct Turns(usize);

impl Turns {
    /// To be called after each step.
    pub(crate) async fn step(&mut self) {
        self.0 += 1;
        if self.0 == STEPS_AT_ONCE {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}
