//! Authorized operations as the protocol tells them: one bit for each operation's code (KIP-430).

/// The client did not ask.
pub(crate) const NOT_ASKED: i32 = i32::MIN;

/// All that can be done to a topic: read, write, create, delete, alter, describe, describe and alter
/// its configs.
pub(crate) const TOPIC: i32 =
    bit(3) | bit(4) | bit(5) | bit(6) | bit(7) | bit(8) | bit(10) | bit(11);

/// All that can be done to a group: read, delete, describe, describe and alter its configs.
pub(crate) const GROUP: i32 = bit(3) | bit(6) | bit(8) | bit(10) | bit(11);

/// All that can be done to the cluster: create, alter, describe, cluster action, describe and alter
/// its configs, write idempotently.
pub(crate) const CLUSTER: i32 = bit(5) | bit(7) | bit(8) | bit(9) | bit(10) | bit(11) | bit(12);

const fn bit(operation: u32) -> i32 {
    1 << operation
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_broker_without_authorizer_allows_what_a_real_one_allows() {
        assert_eq!(super::TOPIC, 3576);
        assert_eq!(super::GROUP, 3400);
        assert_eq!(super::CLUSTER, 8096);
    }
}
