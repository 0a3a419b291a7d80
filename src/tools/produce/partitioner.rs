//! Which partition a record goes to (pure): by its key, as all of Kafka's Java clients choose, so that records with one
//! key meet whoever writes them.

/// The partition of a key among `count`.
pub(super) fn of_key(key: &[u8], count: i32) -> i32 {
    // The sign is dropped, not the value negated: that is how Kafka makes the hash positive.
    (murmur2(key).cast_signed() & i32::MAX) % count.max(1)
}

/// Murmur2 with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Kafka's lengths are 32 bits, and so is the hash.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the length is mixed in modulo 2^32"
    )]
    let mut hash = SEED ^ data.len() as u32;
    let chunks = data.chunks_exact(4);
    let rest = chunks.remainder();
    for chunk in chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values Kafka's own test of its hash has.
    #[test]
    fn the_hash_is_kafkas() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn a_partition_is_never_negative() {
        for key in 0..1000 {
            let partition = of_key(format!("{key}").as_bytes(), 7);
            assert!((0..7).contains(&partition));
        }
    }
}
