//! What groups of both kinds know of members of the classic protocol: how they come, and which protocols they have in
//! common (pure).
//!
//! Clients say how many protocols a member has: everything here takes time in proportion to what they have said
//! altogether, and not to its square.

use std::collections::HashSet;

/// The protocol type of consumers.
pub(super) const CONSUMER: &str = "consumer";

/// From this version of JoinGroup on an id is given out before anybody is a member with it.
pub(super) const MEMBER_ID_REQUIRED: i16 = 4;

/// The names that stand in all of these lists; `None` if there are no lists.
///
/// The members of one application have the same list, which then is compared with the one before and no more.
pub(super) fn common<'a, L>(lists: impl Iterator<Item = L>) -> Option<HashSet<&'a str>>
where
    L: Iterator<Item = &'a str> + Clone,
{
    let mut common: Option<HashSet<&str>> = None;
    let mut before: Option<L> = None;
    for list in lists {
        let is_same = before
            .replace(list.clone())
            .is_some_and(|it| it.eq(list.clone()));
        if is_same {
            continue;
        }
        let left: HashSet<&str> = match &common {
            None => list.collect(),
            Some(common) => list.filter(|name| common.contains(name)).collect(),
        };
        if left.is_empty() {
            return Some(left);
        }
        common = Some(left);
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lists: &[&str], want: Option<&str>) {
        let lists = lists.iter().map(|list| list.split_whitespace());
        let want = want.map(|want| want.split_whitespace().collect());
        assert_eq!(common(lists), want);
    }

    #[test]
    fn what_stands_in_all_is_common() {
        check(&[], None);
        check(&["a b"], Some("a b"));
        check(&["a b c", "c b", "b x c"], Some("b c"));
        check(&["a b", "c", "a"], Some(""));
        check(&["a a", "a"], Some("a"));
    }

    /// With 100,000 names a member, a JoinGroup compared each with each, and the partition's other groups waited.
    #[test]
    fn many_names_take_no_longer_each() {
        let names = |from: u32| -> Vec<String> {
            let names = from..from + 200_000;
            names.map(|number| number.to_string()).collect()
        };
        let (one, other) = (names(0), names(199_999));
        let lists = [&one, &other];
        let lists = lists.iter().map(|list| list.iter().map(|name| &**name));
        assert_eq!(common(lists), Some(HashSet::from(["199999"])));
    }
}
