//! What the directories in a log directory are called: logs by topic and partition, and by what is to become of them.

use uuid::Uuid;

/// A directory in the log directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `orders-0`, or with its suffix `orders-0.0123...-delete`.
    pub name: String,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Live,
    /// Its topic is deleted; the files follow after a delay.
    Deleted,
    /// A copy that will replace the log in another directory.
    Future,
    /// The cluster does not know it.
    Stray,
}

impl State {
    fn suffix(self) -> &'static str {
        match self {
            State::Live => "",
            State::Deleted => "-delete",
            State::Future => "-future",
            State::Stray => "-stray",
        }
    }

    /// What the directory of the log `name` is called in this state.
    pub fn name_of(self, name: &str) -> String {
        let suffix = self.suffix();
        match self {
            State::Live => name.to_owned(),
            State::Deleted | State::Future | State::Stray => {
                let unique = Uuid::new_v4().simple();
                // Kafka keeps to what a file name may have.
                let kept = 255 - 1 - 32 - suffix.len();
                let name = name.get(..kept).unwrap_or(name);
                format!("{name}.{unique}{suffix}")
            }
        }
    }
}

/// A directory's name as a log's: topic, `-`, partition, and perhaps a suffix.
pub(super) fn found(name: String) -> Option<Found> {
    let suffixed = [State::Deleted, State::Future, State::Stray]
        .into_iter()
        .find(|state| name.ends_with(state.suffix()));
    if let Some(state) = suffixed {
        return Some(Found { name, state });
    }
    let (topic, partition) = name.rsplit_once('-')?;
    let live = !topic.is_empty() && partition.parse::<u32>().is_ok();
    live.then_some(())?;
    let state = State::Live;
    Some(Found { name, state })
}
