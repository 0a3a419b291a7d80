//! What a topic may be called, and which topics belong to the brokers.

/// Longest name, in bytes: a directory is called after it, with a partition index and a suffix.
pub(crate) const LENGTH_MAX: usize = 249;

/// What groups and their members have committed.
pub(crate) const OFFSETS: &str = "__consumer_offsets";

/// What becomes of transactions.
pub(crate) const TRANSACTIONS: &str = "__transaction_state";

const INTERNAL: [&str; 3] = [OFFSETS, TRANSACTIONS, "__share_group_state"];

/// Is this a topic that only brokers write to?
pub(crate) fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// `Err` says what is wrong with the name.
pub(crate) fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("the empty string is not allowed");
    }
    if name == "." || name == ".." {
        return Err("'.' or '..' is not allowed");
    }
    if LENGTH_MAX < name.len() {
        return Err("the length cannot be longer than 249 characters");
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !name.bytes().all(legal) {
        return Err(
            "it contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_make_a_directory() {
        let longest = "x".repeat(249);
        for legal in ["a", "a.b_c-D", "...", &longest] {
            assert_eq!(check(legal), Ok(()), "{legal}");
        }
        let too_long = "x".repeat(250);
        for illegal in ["", ".", "..", "a b", "a/b", "é", "a\0", &too_long] {
            assert!(check(illegal).is_err(), "{illegal}");
        }
    }
}
