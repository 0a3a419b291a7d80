//! Groups, their lag and what they read, as `kafka_exporter` (danielqsj) and Kafka name it.
//!
//! - Everything is computed when Prometheus asks. The coordinators are looked at for the time of a copy; the ends of
//!   partitions are read afterwards, so a lag is a little too large rather than negative.
//! - What one scrape shows of single groups is bounded ([`ROWS_MAX`]); how many groups were left out is shown.
//! - A partition's end is known to the brokers that have it: the lag of a partition that is elsewhere is not shown.

use super::{Scrape, list};
use crate::{
    broker::Broker,
    coordinator::group::figures::{GroupView, View},
};

/// Groups, their topics and their partitions, all counted together. A row for a partition makes two lines of 150
/// bytes.
const ROWS_MAX: usize = 200_000;

/// Kafka's states of groups, all of which are shown, also when no group is in one.
const CLASSIC_STATES: [(&str, &super::Metric); 5] = [
    ("PreparingRebalance", &list::GROUPS_PREPARING),
    ("CompletingRebalance", &list::GROUPS_COMPLETING),
    ("Stable", &list::GROUPS_STABLE),
    ("Empty", &list::GROUPS_EMPTY),
    ("Dead", &list::GROUPS_DEAD),
];
const CONSUMER_STATES: [&str; 5] = ["Empty", "Assigning", "Reconciling", "Stable", "Dead"];

/// No offset: the group has committed that it has none.
const NO_OFFSET: i64 = -1;

pub(super) fn scrape(broker: &Broker, to: &mut Scrape<'_>) {
    let mut view = View::default();
    let mut room = ROWS_MAX;
    let states = broker
        .groups()
        .each(|coordinator| coordinator.show(&mut view, &mut room));
    for (state, count) in [
        ("loading", states.loading),
        ("active", states.active),
        ("failed", states.failed),
    ] {
        to.gauge(&list::GROUP_PARTITIONS, &[("state", state)], count as f64);
    }
    scrape_counts(&view, to);
    scrape_figures(broker, to);
    to.gauge(&list::GROUPS_LEFT_OUT, &[], view.left_out as f64);
    for group in &view.groups {
        scrape_group(broker, group, to);
    }
}

fn scrape_counts(view: &View, to: &mut Scrape<'_>) {
    let count = |protocol, state| view.counts.get(&(protocol, state)).copied().unwrap_or(0);
    for (state, metric) in CLASSIC_STATES {
        let count = count("classic", state) as f64;
        to.gauge(metric, &[], count);
        to.gauge(&list::CLASSIC_GROUPS, &[("state", state)], count);
    }
    for state in CONSUMER_STATES {
        let count = count("consumer", state) as f64;
        to.gauge(&list::CONSUMER_GROUPS, &[("state", state)], count);
    }
    for protocol in ["classic", "consumer"] {
        let of_protocol = view
            .counts
            .iter()
            .filter(|((known, _), _)| *known == protocol);
        let count = of_protocol.map(|(_, count)| count).sum::<usize>() as f64;
        to.gauge(&list::GROUPS_BY_PROTOCOL, &[("protocol", protocol)], count);
        if protocol == "classic" {
            to.gauge(&list::GROUPS, &[], count);
        }
    }
    to.gauge(&list::OFFSETS, &[], view.offset_count as f64);
    to.gauge(&list::GROUP_OFFSETS, &[], view.offset_count as f64);
}

fn scrape_figures(broker: &Broker, to: &mut Scrape<'_>) {
    let figures = broker.group_figures();
    for (metric, count) in [
        (&list::OFFSET_COMMITS, &figures.offset_commits),
        (&list::OFFSET_EXPIRATIONS, &figures.offset_expirations),
        (&list::OFFSET_DELETIONS, &figures.offset_deletions),
        (&list::COMPLETED_REBALANCES, &figures.completed_rebalances),
        (&list::CONSUMER_REBALANCES, &figures.consumer_rebalances),
    ] {
        to.counter(metric, &[], count.value() as f64);
    }
}

fn scrape_group(broker: &Broker, group: &GroupView, to: &mut Scrape<'_>) {
    let id = ("consumergroup", &*group.id);
    to.gauge(&list::GROUP_MEMBERS, &[id], group.member_count as f64);
    for read in &group.topics {
        let topic = ("topic", &*read.name);
        let (mut offset_sum, mut lag_sum) = (0_i64, 0_i64);
        for &(index, offset) in &read.offsets {
            let name = index.to_string();
            let labels = [id, topic, ("partition", &*name)];
            to.gauge(&list::GROUP_OFFSET, &labels, offset as f64);
            offset_sum = offset_sum.saturating_add(offset);
            let Ok(partition) = broker.partition(topic.1, index) else {
                continue;
            };
            let lag = match offset {
                NO_OFFSET => NO_OFFSET,
                _ => {
                    let lag = partition.high_watermark().saturating_sub(offset);
                    lag_sum = lag_sum.saturating_add(lag);
                    lag
                }
            };
            to.gauge(&list::GROUP_LAG, &labels, lag as f64);
        }
        to.gauge(&list::GROUP_OFFSET_SUM, &[id, topic], offset_sum as f64);
        to.gauge(&list::GROUP_LAG_SUM, &[id, topic], lag_sum as f64);
    }
}
