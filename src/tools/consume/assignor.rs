//! Kafka's range assignor (pure): of each topic, every member gets partitions in a row, the first members one more if
//! they do not come out even.

use std::collections::BTreeMap;

use crate::client::Assignment;

/// A member that is to get partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    /// A static member keeps its place when it comes back under another id.
    pub(super) instance_id: Option<String>,
    pub(super) topics: Vec<String>,
}

/// Who gets what. `partitions` says how many each topic has.
pub(super) fn range(
    members: &[Member],
    partitions: &BTreeMap<String, i32>,
) -> BTreeMap<String, Assignment> {
    let mut assigned: BTreeMap<String, Assignment> = members
        .iter()
        .map(|member| (member.id.clone(), Assignment::new()))
        .collect();
    // Static members come first, by their own names, as in Kafka's clients.
    let mut members: Vec<&Member> = members.iter().collect();
    members.sort_by_key(|member| {
        let name = member.instance_id.as_ref().unwrap_or(&member.id);
        (member.instance_id.is_none(), name.clone())
    });
    for (topic, &count) in partitions {
        let takers: Vec<&&Member> = members
            .iter()
            .filter(|member| member.topics.contains(topic))
            .collect();
        let Ok(taker_count) = i32::try_from(takers.len()) else {
            continue;
        };
        if taker_count == 0 {
            continue;
        }
        let (each, extra) = (count / taker_count, count % taker_count);
        let mut next = 0;
        for (at, taker) in (0..).zip(takers) {
            let size = each + i32::from(at < extra);
            if 0 < size {
                let mine = assigned.entry(taker.id.clone()).or_default();
                mine.insert(topic.clone(), (next..next + size).collect());
            }
            next += size;
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_one_member_and_the_first_ones_get_more() {
        check(&["a:x", "b:x"], &[("x", 3)], "a=x:0,1 b=x:2");
        check(&["b:x", "a:x", "c:x"], &[("x", 2)], "a=x:0 b=x:1 c=");
        check(
            &["a:x,y", "b:y"],
            &[("x", 2), ("y", 2)],
            "a=x:0,1;y:0 b=y:1",
        );
        check(&["a:x"], &[("x", 0)], "a=");
    }

    #[track_caller]
    fn check(members: &[&str], partitions: &[(&str, i32)], expected: &str) {
        let member = |text: &&str| {
            let (id, topics) = text.split_once(':').expect("id:topics");
            Member {
                id: id.to_owned(),
                instance_id: None,
                topics: topics.split(',').map(str::to_owned).collect(),
            }
        };
        let members: Vec<Member> = members.iter().map(member).collect();
        let partitions = partitions
            .iter()
            .map(|(topic, count)| ((*topic).to_owned(), *count));
        let assigned = range(&members, &partitions.collect());
        let topic = |(topic, indexes): (&String, &Vec<i32>)| {
            let indexes: Vec<String> = indexes.iter().map(i32::to_string).collect();
            format!("{topic}:{}", indexes.join(","))
        };
        let shown: Vec<String> = assigned
            .iter()
            .map(|(id, of)| {
                format!(
                    "{id}={}",
                    of.iter().map(topic).collect::<Vec<_>>().join(";")
                )
            })
            .collect();
        assert_eq!(shown.join(" "), expected);
    }
}
