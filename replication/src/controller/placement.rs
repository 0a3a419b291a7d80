//! Which brokers get the replicas of new partitions (pure).
//!
//! Kafka's striped placement: replicas go round the racks, and within a rack round its brokers, from
//! a random start. Brokers that can serve come first; a fenced one is used only when those of its
//! rack are used up, and never as the first replica, which leads.

use std::collections::BTreeMap;

use super::dice::Dice;
use crate::cluster::ClusterImage;

/// Replicas of each of `count` partitions, or why there can be none.
pub(super) fn place(
    image: &ClusterImage,
    dice: &mut Dice,
    count: i32,
    factor: i16,
) -> Result<Vec<Vec<i32>>, String> {
    let mut racks = Racks::new(image, dice);
    let Some(factor) = usize::try_from(factor).ok().filter(|factor| *factor != 0) else {
        return Err(format!(
            "Invalid replication factor {factor}: the replication factor must be positive."
        ));
    };
    if racks.unfenced == 0 {
        return Err(
            "All brokers are currently fenced, or have all their log directories cordoned."
                .to_owned(),
        );
    }
    if racks.brokers < factor {
        return Err(format!(
            "The target replication factor of {factor} cannot be reached because only {} \
             broker(s) are registered or some brokers have all their log directories cordoned.",
            racks.brokers
        ));
    }
    Ok((0..count).map(|_| racks.place(dice, factor)).collect())
}

struct Racks {
    racks: Vec<Rack>,
    /// The rack the next partition starts at.
    offset: usize,
    brokers: usize,
    unfenced: usize,
    /// Partitions placed since the last shuffle.
    placed: usize,
}

#[derive(Default)]
struct Rack {
    unfenced: Ring,
    fenced: Ring,
}

/// Brokers gone round once for each partition, starting one further every time.
#[derive(Default)]
struct Ring {
    ids: Vec<i32>,
    offset: usize,
    used: usize,
}

impl Racks {
    fn new(image: &ClusterImage, dice: &mut Dice) -> Racks {
        let mut by_name: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
        let (mut unfenced, mut brokers) = (0, 0);
        let usable = image
            .brokers
            .values()
            .filter(|broker| !broker.is_cordoned());
        for broker in usable {
            brokers += 1;
            let rack = by_name.entry(broker.rack.as_deref()).or_default();
            if broker.fenced {
                rack.fenced.ids.push(broker.id);
            } else {
                rack.unfenced.ids.push(broker.id);
                unfenced += 1;
            }
        }
        let mut racks: Vec<Rack> = by_name.into_values().collect();
        for rack in &mut racks {
            rack.fenced.offset = dice.below(rack.fenced.ids.len());
            rack.unfenced.offset = dice.below(rack.unfenced.ids.len());
        }
        let offset = dice.below(racks.len());
        Racks {
            racks,
            offset,
            brokers,
            unfenced,
            placed: 0,
        }
    }

    /// The caller has checked that there are `factor` brokers, one of them unfenced.
    fn place(&mut self, dice: &mut Dice, factor: usize) -> Vec<i32> {
        // Once every broker has been first, start over in another order: otherwise the same sets
        // of brokers would share all their partitions.
        if self.placed == self.unfenced && 1 < self.unfenced {
            dice.shuffle(&mut self.racks);
            for rack in &mut self.racks {
                dice.shuffle(&mut rack.unfenced.ids);
                dice.shuffle(&mut rack.fenced.ids);
            }
            self.placed = 0;
        }
        let count = self.racks.len();
        let mut replicas = Vec::with_capacity(factor);
        let start = self.offset % count;
        let mut leader_rack = None;
        for rack in (start..start + count).map(|at| at % count) {
            if let Some(id) = self.racks[rack].unfenced.next() {
                replicas.push(id);
                leader_rack = Some(rack);
                break;
            }
        }
        let mut rack = start;
        while replicas.len() < factor {
            // The leader's rack has had its turn in the first round.
            if leader_rack == Some(rack) {
                leader_rack = None;
            } else if let Some(id) = self.racks[rack].next() {
                replicas.push(id);
            }
            rack = (rack + 1) % count;
        }
        for rack in &mut self.racks {
            rack.unfenced.advance();
            rack.fenced.advance();
        }
        self.placed += 1;
        self.offset = start + 1;
        replicas
    }
}

impl Rack {
    fn next(&mut self) -> Option<i32> {
        self.unfenced.next().or_else(|| self.fenced.next())
    }
}

impl Ring {
    fn next(&mut self) -> Option<i32> {
        if self.used == self.ids.len() {
            return None;
        }
        let id = self.ids[(self.used + self.offset) % self.ids.len()];
        self.used += 1;
        Some(id)
    }

    fn advance(&mut self) {
        if !self.ids.is_empty() {
            self.offset = (self.offset + 1) % self.ids.len();
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use crate::controller::script::check;

    #[test]
    fn a_fenced_broker_gets_replicas_only_when_it_must() {
        check(
            "broker 1
             broker 2
             broker 3
             fence 3
             create two 50 2 => 50x2
             create three 1 3 => 1x3
             unregister 3
             create four 1 3 => InvalidReplicationFactor: Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 2 broker(s) are registered or some brokers have all their log directories cordoned.",
        );
    }
}
