//! Small text files that name things: `meta.properties`, `partition.metadata` and the marker of a
//! clean stop, written as Kafka writes them and read with the tolerance Kafka has.

use std::path::Path;

use uuid::Uuid;

use crate::error::Error;

/// Whose directories these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: String,
    pub node_id: i32,
}

/// Kafka's way to write an id: 16 bytes in URL-safe base64 without padding, 22 characters.
pub fn encode_uuid(id: Uuid) -> String {
    let mut text = String::with_capacity(22);
    for chunk in id.as_bytes().chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for at in 0..=chunk.len() {
            let index = bits >> (18 - 6 * at) & 0x3f;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

pub fn decode_uuid(text: &str) -> Option<Uuid> {
    if text.len() != 22 {
        return None;
    }
    let mut bits: u128 = 0;
    let (last, rest) = text.as_bytes().split_last()?;
    for byte in rest {
        bits = bits << 6 | value(*byte)?;
    }
    // 21 characters are 126 bits; the last one has the other two in front.
    Some(Uuid::from_u128(bits << 2 | value(*last)? >> 4))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn value(byte: u8) -> Option<u128> {
    ALPHABET
        .iter()
        .position(|known| *known == byte)
        .map(|at| at as u128)
}

/// A random id that does not begin with `-`, which would look like an option on a command line.
pub(crate) fn new_directory_id() -> Uuid {
    loop {
        let id = Uuid::new_v4();
        if !encode_uuid(id).starts_with('-') {
            return id;
        }
    }
}

/// Of `meta.properties`: the only one that a broker without ZooKeeper ever wrote.
const META_VERSION: &str = "1";

/// `meta.properties`.
pub(crate) fn meta(identity: &Identity, directory_id: Uuid, now: i64) -> String {
    format!(
        "#\n#{}\nnode.id={}\ndirectory.id={}\nversion={META_VERSION}\ncluster.id={}\n",
        java_date(now),
        identity.node_id,
        encode_uuid(directory_id),
        identity.cluster_id
    )
}

/// The cluster in a `meta.properties`.
pub(crate) fn cluster_id(content: &[u8]) -> Option<String> {
    property(content, "cluster.id").filter(|id| !id.is_empty())
}

fn property(content: &[u8], key: &str) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    let mut lines = text.lines().filter(|line| !line.starts_with(['#', '!']));
    lines.find_map(|line| {
        let (name, value) = line.split_once(['=', ':'])?;
        // Java's properties escape these two.
        (name.trim() == key).then(|| value.trim().replace("\\=", "=").replace("\\:", ":"))
    })
}

/// The directory id in a `meta.properties`, if it has one and belongs to us.
pub(crate) fn check_meta(
    path: &Path,
    content: &[u8],
    identity: &Identity,
) -> Result<Option<Uuid>, Error> {
    let ours = |key: &'static str, expected: String| match property(content, key) {
        Some(found) if found == expected => Ok(()),
        found => Err(Error::NotOurs {
            path: path.to_owned(),
            key,
            expected,
            found: found.unwrap_or_default(),
        }),
    };
    // Before there were versions it was not said.
    let version = property(content, "version").unwrap_or_else(|| "0".to_owned());
    if version != META_VERSION {
        return Err(Error::Format {
            path: path.to_owned(),
            version,
        });
    }
    ours("cluster.id", identity.cluster_id.clone())?;
    ours("node.id", identity.node_id.to_string())?;
    match property(content, "directory.id") {
        None => Ok(None),
        Some(text) => match decode_uuid(&text) {
            Some(id) => Ok(Some(id)),
            None => Err(Error::Corrupt {
                path: path.to_owned(),
                position: 0,
                reason: "directory.id is not an id",
            }),
        },
    }
}

/// A time in milliseconds as Java's `Properties.store` writes it into its comment, in UTC.
fn java_date(now: i64) -> String {
    let days = now.div_euclid(86_400_000);
    let seconds = now.rem_euclid(86_400_000) / 1000;
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    // Days since 1 March 0000 in eras of 400 years: leap days come last in each year then.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(month < 2);
    let name = |names: &[&'static str], at: i64| names[usize::try_from(at).unwrap_or(0)];
    format!(
        "{} {} {:02} {:02}:{:02}:{:02} UTC {year}",
        name(&weekday, days.rem_euclid(7)),
        name(&months, month),
        day,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

pub(crate) fn partition_metadata(topic_id: Uuid) -> String {
    format!("version: 0\ntopic_id: {}", encode_uuid(topic_id))
}

pub(crate) fn topic_id(content: &[u8]) -> Option<Uuid> {
    let text = std::str::from_utf8(content).ok()?;
    let mut lines = text.lines();
    let version = lines.next()?.strip_prefix("version:")?;
    (version.trim() == "0").then_some(())?;
    decode_uuid(lines.next()?.strip_prefix("topic_id:")?.trim())
}

pub(crate) fn clean_shutdown(broker_epoch: i64) -> String {
    format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}")
}

/// The broker epoch in the marker of a clean stop. Older brokers left the file empty.
pub(crate) fn broker_epoch(content: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(content).ok()?;
    let (_, rest) = text.split_once("\"brokerEpoch\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let end = rest
        .find(|c: char| c != '-' && !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_kafka_writes_them() {
        // Kafka's metadata topic id, and all ones.
        for (number, text) in [
            (1, "AAAAAAAAAAAAAAAAAAAAAQ"),
            (u128::MAX, "_____________________w"),
            (0, "AAAAAAAAAAAAAAAAAAAAAA"),
        ] {
            assert_eq!(encode_uuid(Uuid::from_u128(number)), text);
            assert_eq!(decode_uuid(text), Some(Uuid::from_u128(number)));
        }
        assert_eq!(decode_uuid("short"), None);
        assert_eq!(decode_uuid("AAAAAAAAAAAAAAAAAAAAA="), None);
        let id = new_directory_id();
        assert_eq!(decode_uuid(&encode_uuid(id)), Some(id));
    }

    #[test]
    fn a_directory_knows_whose_it_is() {
        let path = Path::new("meta.properties");
        let ours = Identity {
            cluster_id: "c1".to_owned(),
            node_id: 3,
        };
        let id = Uuid::from_u128(7);
        let text = meta(&ours, id, 0);
        assert_eq!(
            text,
            "#\n#Thu Jan 01 00:00:00 UTC 1970\nnode.id=3\n\
             directory.id=AAAAAAAAAAAAAAAAAAAABw\nversion=1\ncluster.id=c1\n"
        );
        let found = check_meta(path, text.as_bytes(), &ours).unwrap();
        assert_eq!(found, Some(id));
        let theirs = Identity {
            node_id: 4,
            ..ours.clone()
        };
        let refused = check_meta(path, text.as_bytes(), &theirs).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "meta.properties says node.id=3, this node has 4"
        );
        let older = check_meta(path, b"node.id=3\r\nversion=1\r\ncluster.id=c1\r\n", &ours);
        assert_eq!(older.unwrap(), None);
    }

    #[test]
    fn dates_are_javas() {
        assert_eq!(java_date(1_582_934_399_000), "Fri Feb 28 23:59:59 UTC 2020");
        assert_eq!(java_date(1_582_934_400_000), "Sat Feb 29 00:00:00 UTC 2020");
        assert_eq!(java_date(1_795_219_200_000), "Sat Nov 21 00:00:00 UTC 2026");
    }

    #[test]
    fn markers_and_topic_ids_come_back() {
        assert_eq!(broker_epoch(clean_shutdown(42).as_bytes()), Some(42));
        assert_eq!(
            broker_epoch(b"{ \"brokerEpoch\" : -1 , \"version\":0}"),
            Some(-1)
        );
        assert_eq!(broker_epoch(b""), None);
        let id = Uuid::from_u128(9);
        assert_eq!(topic_id(partition_metadata(id).as_bytes()), Some(id));
        assert_eq!(topic_id(b"version: 1\ntopic_id: x"), None);
    }
}
