//! What a request names again is answered again, as by a real broker, but not without end: a few hundred kilobytes of
//! the same name would ask for gigabytes.
//!
//! Everything is answered once, whatever it takes. The answers beside that share [`ROOM`]; who asks for more is refused
//! it with INVALID_REQUEST, which takes no more than the asking.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

use kafka_protocol::protocol::Encodable;
use protocol::error::ErrorCode;

/// Bytes that one response has for what its request has named again.
const ROOM: usize = 4 << 20;

/// For whom there is no more room.
pub(crate) const REFUSED: ErrorCode = ErrorCode::InvalidRequest;

/// What is left of it.
#[derive(Debug)]
pub(crate) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(ROOM)
    }
}

impl Room {
    pub(crate) fn is_left(&self) -> bool {
        self.0 != 0
    }

    /// Takes what an answer needs, which may be more than is left: there is none for the next one then.
    pub(crate) fn take(&mut self, answer: &impl Encodable, version: i16) {
        self.take_bytes(answer.compute_size(version).unwrap_or(usize::MAX));
    }

    /// `false` if there was none left.
    pub(crate) fn take_bytes(&mut self, size: usize) -> bool {
        let was_left = self.is_left();
        self.0 = self.0.saturating_sub(size);
        was_left
    }

    /// An answer for each of `names`. `answers` has one for each that differs, in their order.
    pub(crate) fn spread<K: Eq + Hash, T: Encodable + Clone>(
        &mut self,
        names: &[K],
        answers: Vec<T>,
        version: i16,
        refused: impl Fn(&K) -> T,
    ) -> Vec<T> {
        let mut answers = answers.into_iter();
        let mut places = HashMap::with_capacity(names.len());
        let mut spread: Vec<T> = Vec::with_capacity(names.len());
        for name in names {
            let answer = match places.entry(name) {
                Entry::Vacant(place) => {
                    place.insert(spread.len());
                    answers.next().unwrap_or_else(|| refused(name))
                }
                Entry::Occupied(place) if self.is_left() => {
                    let known: &T = &spread[*place.get()];
                    self.take(known, version);
                    known.clone()
                }
                Entry::Occupied(_) => refused(name),
            };
            spread.push(answer);
        }
        spread
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{TransactionalId, describe_transactions_response::*};

    use super::*;

    #[test]
    fn what_is_named_again_is_answered_until_the_room_is_used_up() {
        let described = |name: &str, size: usize| {
            TransactionState::default()
                .with_transactional_id(TransactionalId(name.to_owned().into()))
                .with_transaction_state("x".repeat(size).into())
        };
        let answers = vec![described("small", 1), described("large", ROOM / 2)];
        let names = [
            "small", "large", "small", "large", "large", "large", "small",
        ];
        let spread = Room::default().spread(&names, answers, 0, |name| {
            described(name, 0).with_error_code(REFUSED.code())
        });
        let named = spread.iter().map(|it| &**it.transactional_id);
        assert_eq!(named.collect::<Vec<_>>(), names);
        let refused = spread.iter().map(|it| it.error_code != 0);
        let expected = [false, false, false, false, false, true, true];
        assert_eq!(refused.collect::<Vec<_>>(), expected);
    }
}
