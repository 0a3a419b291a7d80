//! Transactional ids, by what their transactions are doing: many that are `PrepareCommit` or `PrepareAbort` for long
//! have a partition that cannot be told how they have ended.

use super::{Scrape, list};
use crate::{broker::Broker, coordinator::transaction::state::Status};

const STATUSES: [(&str, Status); 6] = [
    ("Empty", Status::Empty),
    ("Ongoing", Status::Ongoing),
    ("PrepareCommit", Status::PrepareCommit),
    ("PrepareAbort", Status::PrepareAbort),
    ("CompleteCommit", Status::CompleteCommit),
    ("CompleteAbort", Status::CompleteAbort),
];

pub(super) fn scrape(broker: &Broker, to: &mut Scrape<'_>) {
    let mut counts = [0_usize; STATUSES.len()];
    let states = broker.transactions().runtime().each(|coordinator| {
        for status in coordinator.statuses() {
            let place = STATUSES.iter().position(|(_, known)| *known == status);
            if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
                *count += 1;
            }
        }
    });
    for ((name, _), count) in STATUSES.iter().zip(counts) {
        to.gauge(&list::TRANSACTIONAL_IDS, &[("state", name)], count as f64);
    }
    for (state, count) in [
        ("loading", states.loading),
        ("active", states.active),
        ("failed", states.failed),
    ] {
        let labels = [("state", state)];
        to.gauge(&list::TRANSACTION_PARTITIONS, &labels, count as f64);
    }
}
