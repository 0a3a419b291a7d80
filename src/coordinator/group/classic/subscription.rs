//! What a member of protocol type `consumer` says of itself: of its metadata, the topics it reads.
//!
//! The broker has no part in this, and looks at it for one reason: the offsets of topics that are still read neither
//! expire nor are deleted. Every version begins as the first did, with a version and the topics.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};

/// Adds the topics in `metadata` to `topics`; `None` if it is something else.
pub(super) fn add_topics(metadata: &Bytes, topics: &mut BTreeSet<Box<str>>) -> Option<()> {
    let mut rest = &**metadata;
    let version = rest.try_get_i16().ok()?;
    if version < 0 {
        return None;
    }
    let count = rest.try_get_i32().ok().filter(|count| *count >= 0)?;
    for _ in 0..count {
        let size = usize::try_from(rest.try_get_i16().ok()?).ok()?;
        let (name, after) = rest.split_at_checked(size)?;
        topics.insert(std::str::from_utf8(name).ok()?.into());
        rest = after;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(metadata: &'static [u8]) -> Option<Vec<Box<str>>> {
        let mut topics = BTreeSet::new();
        add_topics(&Bytes::from_static(metadata), &mut topics)?;
        Some(topics.into_iter().collect())
    }

    #[test]
    fn topics_stand_first_in_every_version() {
        let two = Some(vec!["a".into(), "bc".into()]);
        assert_eq!(
            topics(b"\0\0\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff"),
            two
        );
        assert_eq!(topics(b"\0\x03\0\0\0\x02\0\x02bc\0\x01a and more"), two);
        assert_eq!(topics(b"\0\x01\0\0\0\0"), Some(vec![]));
    }

    #[test]
    fn what_is_no_subscription_is_nothing() {
        for metadata in [
            &b""[..],
            b"\0",
            b"\xff\xff\0\0\0\0",
            b"\0\0\xff\xff\xff\xff",
            b"\0\0\x7f\xff\xff\xff\0\x01a",
            b"\0\0\0\0\0\x01\0\x09short",
            b"\0\0\0\0\0\x01\0\x01\xff",
            b"\0\0\0\0\0\x01\xff\xff",
        ] {
            assert_eq!(topics(metadata), None, "{metadata:?}");
        }
    }
}
