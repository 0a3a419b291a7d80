//! What clients of the classic protocol send each other through the broker when they are consumers: subscriptions and
//! assignments, Kafka's ConsumerProtocolSubscription and ConsumerProtocolAssignment.
//!
//! A later version begins as an earlier one does, so one that is not known is read as the newest that is.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const NEWEST: i16 = 3;

/// What a member says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) version: i16,
    pub(super) topics: Vec<String>,
    pub(super) owned: Vec<(String, Vec<i32>)>,
    pub(super) rack_id: Option<String>,
}

impl Subscription {
    /// `None` if it is something else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let version = version(&mut rest)?;
        let topics = array(&mut rest, |rest| text(rest)?)?;
        skip_bytes(&mut rest)?;
        let mut subscription = Self {
            version,
            topics,
            ..Self::default()
        };
        if 1 <= version {
            subscription.owned = topic_partitions(&mut rest)?;
        }
        if 2 <= version {
            rest.try_get_i32().ok()?;
        }
        if 3 <= version {
            subscription.rack_id = text(&mut rest)?;
        }
        Some(subscription)
    }
}

/// The partitions in an assignment. An empty one, which members without one have, has none.
pub(super) fn decode_assignment(bytes: &[u8]) -> Option<Vec<(String, Vec<i32>)>> {
    let mut rest = bytes;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    version(&mut rest)?;
    let partitions = topic_partitions(&mut rest)?;
    skip_bytes(&mut rest)?;
    Some(partitions)
}

pub(super) fn encode_assignment<'a>(
    version: i16,
    partitions: impl ExactSizeIterator<Item = (&'a str, Vec<i32>)>,
) -> Bytes {
    let mut out = BytesMut::new();
    let put_count = |out: &mut BytesMut, count: usize| {
        out.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
    };
    out.put_i16(version.min(NEWEST));
    put_count(&mut out, partitions.len());
    for (topic, indexes) in partitions {
        // Names of topics have at most 249 characters.
        out.put_i16(i16::try_from(topic.len()).unwrap_or(i16::MAX));
        out.put_slice(topic.as_bytes());
        put_count(&mut out, indexes.len());
        for index in indexes {
            out.put_i32(index);
        }
    }
    // Nothing of the client's own.
    out.put_i32(-1);
    out.freeze()
}

fn version(rest: &mut &[u8]) -> Option<i16> {
    let version = rest.try_get_i16().ok()?;
    (0 <= version).then_some(version.min(NEWEST))
}

fn topic_partitions(rest: &mut &[u8]) -> Option<Vec<(String, Vec<i32>)>> {
    array(rest, |rest| {
        let topic = text(rest)??;
        Some((topic, array(rest, |rest| rest.try_get_i32().ok())?))
    })
}

/// Nothing is reserved for elements that have only been announced.
fn array<T>(rest: &mut &[u8], mut element: impl FnMut(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = rest.try_get_i32().ok()?;
    let mut elements = Vec::new();
    for _ in 0..usize::try_from(count).ok()? {
        elements.push(element(rest)?);
    }
    Some(elements)
}

/// A string, or that there is none.
fn text(rest: &mut &[u8]) -> Option<Option<String>> {
    let size = rest.try_get_i16().ok()?;
    if size == -1 {
        return Some(None);
    }
    let (text, after) = rest.split_at_checked(usize::try_from(size).ok()?)?;
    *rest = after;
    Some(Some(str::from_utf8(text).ok()?.to_owned()))
}

fn skip_bytes(rest: &mut &[u8]) -> Option<()> {
    let size = rest.try_get_i32().ok()?;
    if size != -1 {
        *rest = rest.get(usize::try_from(size).ok()?..)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_of_every_version_are_read() {
        let read = |bytes: &[u8]| {
            let it = Subscription::decode(bytes)?;
            Some((it.version, it.topics, it.owned, it.rack_id))
        };
        let topics = vec!["t".to_owned()];
        let v0 = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";
        assert_eq!(read(v0), Some((0, topics.clone(), vec![], None)));
        let owned = vec![("t".to_owned(), vec![7])];
        let v1 = b"\0\x01\0\0\0\x01\0\x01t\0\0\0\x02ab\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x07";
        assert_eq!(read(v1), Some((1, topics.clone(), owned, None)));
        let v3 = (3, topics, vec![], Some("r".to_owned()));
        let bytes = b"\0\x03\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\0\0\0\0\x09\0\x01r";
        assert_eq!(read(bytes), Some(v3.clone()));
        let later = b"\0\x09\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\0\0\0\0\x09\0\x01r and more";
        assert_eq!(read(later), Some(v3));
    }

    #[test]
    fn what_is_no_subscription_is_nothing() {
        for bytes in [
            &b""[..],
            b"xx",
            b"\xff\xff\0\0\0\0\xff\xff\xff\xff",
            b"\0\0\x7f\xff\xff\xff",
            b"\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\0\0\0\0\0\x01\xff\xff\xff\xff\xff\xff",
            b"\0\x01\0\0\0\0\0\0\0\x09ab",
        ] {
            assert_eq!(Subscription::decode(bytes), None, "{bytes:?}");
        }
        assert_eq!(decode_assignment(b"zz"), None);
    }

    #[test]
    fn an_assignment_is_read_back() {
        let given = [("t", vec![0, 2]), ("u", vec![1])];
        let bytes = encode_assignment(1, given.into_iter());
        assert_eq!(
            bytes,
            &b"\0\x01\0\0\0\x02\0\x01t\0\0\0\x02\0\0\0\0\0\0\0\x02\0\x01u\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff"[..]
        );
        let read = decode_assignment(&bytes).unwrap();
        assert_eq!(
            read,
            [("t".to_owned(), vec![0, 2]), ("u".to_owned(), vec![1])]
        );
        assert_eq!(decode_assignment(b""), Some(vec![]));
    }
}
