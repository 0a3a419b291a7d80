//! What the broker counts, and how Prometheus reads it.
//!
//! - Counting is an addition to an atomic: of an API, found by its number; of a listener, whose counters its
//!   connections hold; of a topic, found by its name.
//! - What can be asked for is not counted: gauges of partitions and of the controller are read when Prometheus
//!   asks, by whoever registered with [`Metrics::on_scrape`].
//! - [`list`] has every metric's name, unit and meaning.
//!
//! Names, units and the text format are those of the crates `metrics` and `metrics-exporter-prometheus`; the
//! latter's recorder is not used. It keeps every sample of a histogram until somebody scrapes, and every label
//! ever seen for good, where a broker serves 100,000 requests a second and topics come and go.

pub(crate) mod codes;
mod endpoint;
pub(crate) mod gauges;
mod groups;
mod histogram;
pub mod list;
mod process;
mod transactions;

use std::{
    array,
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, ResponseKind},
};
use metrics_exporter_prometheus::formatting;
use protocol::fetch::FetchResponse;

pub use endpoint::Endpoint;
pub use histogram::Histogram;
pub use list::Metric;

use histogram::Window;

/// More than any API key of Kafka.
const API_COUNT: usize = 128;
/// More than any version of an API.
const VERSION_COUNT: usize = 24;
/// More than any error code, and one for -1.
const ERROR_COUNT: usize = 160;
/// Quantiles are those of the last one to two turns.
const TURN: Duration = Duration::from_secs(60);
/// As `jmx_exporter` writes Kafka's percentiles.
const QUANTILES: [(f64, &str); 6] = [
    (0.5, "0.50"),
    (0.75, "0.75"),
    (0.95, "0.95"),
    (0.98, "0.98"),
    (0.99, "0.99"),
    (0.999, "0.999"),
];

pub struct Metrics {
    /// By API key. An API nobody asks for costs a word.
    apis: [OnceLock<Box<Api>>; API_COUNT],
    topics: RwLock<Topics>,
    listeners: Mutex<BTreeMap<String, Arc<Listener>>>,
    gauges: Mutex<Vec<Gauges>>,
    scraper: Mutex<Scraper>,
}

type Gauges = Box<dyn Fn(&mut Scrape<'_>) + Send + Sync>;

/// One API's requests.
pub struct Api {
    key: i16,
    requests: [AtomicU64; VERSION_COUNT],
    errors: [AtomicU64; ERROR_COUNT],
    total_time: Histogram,
    local_time: Histogram,
    remote_time: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

/// One request that was answered.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    pub version: i16,
    /// From the last byte of the request to the last of its answer.
    pub total: Duration,
    /// The part that was spent waiting, for replicas or for records.
    pub waited: Duration,
    pub request_size: usize,
    pub response_size: usize,
}

impl Api {
    pub fn served(&self, served: Served) {
        let version = usize::try_from(served.version)
            .unwrap_or(0)
            .min(VERSION_COUNT - 1);
        self.requests[version].fetch_add(1, Relaxed);
        self.total_time.record(micros(served.total));
        self.local_time
            .record(micros(served.total.saturating_sub(served.waited)));
        self.remote_time.record(micros(served.waited));
        self.request_bytes.record(served.request_size as u64);
        self.response_bytes.record(served.response_size as u64);
    }

    /// So many answers, or parts of one, carried this code; 0 is a success.
    pub fn answered(&self, code: i16, times: u64) {
        let place = usize::try_from(i32::from(code) + 1).unwrap_or(0);
        if let Some(count) = self.errors.get(place) {
            count.fetch_add(times, Relaxed);
        }
    }

    /// Counts the codes of an answer.
    pub(crate) fn answered_with(&self, body: &ResponseKind) {
        // Successes are many and counted in one addition.
        let mut fine = 0;
        codes::each(body, &mut |code| match code {
            0 => fine += 1,
            code => self.answered(code, 1),
        });
        self.answered(0, fine);
    }

    /// The same for a fetch, whose answer is a type of its own.
    pub(crate) fn answered_with_fetch(&self, response: &FetchResponse) {
        let mut fine = u64::from(response.error_code == 0);
        if response.error_code != 0 {
            self.answered(response.error_code, 1);
        }
        for partition in response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions)
        {
            match partition.error_code {
                0 => fine += 1,
                code => self.answered(code, 1),
            }
        }
        self.answered(0, fine);
    }
}

/// What is counted for each topic.
#[derive(Debug, Default)]
pub struct Counts {
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub bytes_rejected: AtomicU64,
    pub messages_in: AtomicU64,
    pub produce_requests: AtomicU64,
    pub produce_failures: AtomicU64,
    pub fetch_requests: AtomicU64,
    pub fetch_failures: AtomicU64,
}

/// What topics have counted, also those that are gone: a sum over all of them must not shrink.
#[derive(Default)]
struct Topics {
    live: HashMap<String, Counts>,
    gone: Counts,
}

impl Counts {
    /// Records were appended for a producer.
    pub fn appended(&self, records: u64, bytes: usize) {
        self.messages_in.fetch_add(records, Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    fn add(&self, other: &Counts) {
        for ((_, to), (_, from)) in self.rows().into_iter().zip(other.rows()) {
            to.fetch_add(from.load(Relaxed), Relaxed);
        }
    }

    fn rows(&self) -> [(&'static Metric, &AtomicU64); 8] {
        [
            (&list::BYTES_IN, &self.bytes_in),
            (&list::BYTES_OUT, &self.bytes_out),
            (&list::BYTES_REJECTED, &self.bytes_rejected),
            (&list::MESSAGES_IN, &self.messages_in),
            (&list::PRODUCE_REQUESTS, &self.produce_requests),
            (&list::PRODUCE_FAILURES, &self.produce_failures),
            (&list::FETCH_REQUESTS, &self.fetch_requests),
            (&list::FETCH_FAILURES, &self.fetch_failures),
        ]
    }
}

/// One listener's connections.
#[derive(Debug, Default)]
pub struct Listener {
    pub created: AtomicU64,
    pub closed: AtomicU64,
    /// Of the closed ones, those that were idle for too long.
    pub expired: AtomicU64,
    /// Turned away before they were counted as created.
    pub refused: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            apis: array::from_fn(|_| OnceLock::new()),
            topics: RwLock::default(),
            listeners: Mutex::default(),
            gauges: Mutex::default(),
            scraper: Mutex::new(Scraper {
                windows: BTreeMap::new(),
                turned: Instant::now(),
            }),
        }
    }
}

impl Metrics {
    /// The counters of an API, or `None` for a key beyond all of Kafka's.
    pub fn api(&self, key: ApiKey) -> Option<&Api> {
        let key = key as i16;
        let place = self.apis.get(usize::try_from(key).ok()?)?;
        Some(place.get_or_init(|| Box::new(Api::new(key))))
    }

    /// Counts for a topic that exists. The one look-up by name there is: the layer that has an object for each
    /// topic knows no metrics.
    pub fn count(&self, topic: &str, count: impl FnOnce(&Counts)) {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = topics.live.get(topic) {
            return count(counts);
        }
        drop(topics);
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        count(topics.live.entry(topic.to_owned()).or_default());
    }

    /// Forgets topics that exist no longer; what they counted stays in the sum over all.
    pub fn retain_topics(&self, exists: impl Fn(&str) -> bool) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let Topics { live, gone } = &mut *topics;
        live.retain(|name, counts| {
            let keep = exists(name);
            if !keep {
                gone.add(counts);
            }
            keep
        });
    }

    /// The counters of a listener, by its name.
    pub fn listener(&self, name: &str) -> Arc<Listener> {
        Arc::clone(lock(&self.listeners).entry(name.to_owned()).or_default())
    }

    /// Has `gauges` asked at every scrape for what is to be shown then.
    pub fn on_scrape(&self, gauges: impl Fn(&mut Scrape<'_>) + Send + Sync + 'static) {
        lock(&self.gauges).push(Box::new(gauges));
    }

    /// Everything, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.render_at(Instant::now())
    }

    fn render_at(&self, now: Instant) -> String {
        let mut scraper = lock(&self.scraper);
        let turn = TURN <= now.saturating_duration_since(scraper.turned);
        if turn {
            scraper.turned = now;
        }
        let mut scrape = Scrape {
            lines: vec![String::new(); list::ALL.len()],
            windows: &mut scraper.windows,
            turn,
        };
        // First, because it is then that topics that are gone are forgotten.
        for gauges in lock(&self.gauges).iter() {
            gauges(&mut scrape);
        }
        self.scrape_topics(&mut scrape);
        for api in self.apis.iter().filter_map(OnceLock::get) {
            api.scrape(&mut scrape);
        }
        for (name, listener) in lock(&self.listeners).iter() {
            listener.scrape(&mut scrape, name);
        }
        process::scrape(&mut scrape);
        scrape.finish()
    }

    fn scrape_topics(&self, to: &mut Scrape<'_>) {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let all = Counts::default();
        all.add(&topics.gone);
        for (topic, counts) in &topics.live {
            all.add(counts);
            for (metric, count) in counts.rows() {
                to.counter(metric, &[("topic", topic)], count.load(Relaxed) as f64);
            }
        }
        for (metric, count) in all.rows() {
            to.counter(metric, &[], count.load(Relaxed) as f64);
        }
    }
}

impl Listener {
    fn scrape(&self, to: &mut Scrape<'_>, name: &str) {
        let labels = [("listener", name)];
        // Closed first: a connection counted meanwhile must not make the difference negative.
        let closed = self.closed.load(Relaxed);
        let created = self.created.load(Relaxed);
        to.gauge(
            &list::CONNECTION_COUNT,
            &labels,
            created.saturating_sub(closed) as f64,
        );
        to.counter(&list::CONNECTIONS_CREATED, &labels, created as f64);
        to.counter(&list::CONNECTIONS_CLOSED, &labels, closed as f64);
        to.counter(
            &list::CONNECTIONS_EXPIRED,
            &labels,
            self.expired.load(Relaxed) as f64,
        );
        to.counter(
            &list::CONNECTIONS_REFUSED,
            &labels,
            self.refused.load(Relaxed) as f64,
        );
    }
}

impl Api {
    fn new(key: i16) -> Api {
        Api {
            key,
            requests: array::from_fn(|_| AtomicU64::new(0)),
            errors: array::from_fn(|_| AtomicU64::new(0)),
            total_time: Histogram::default(),
            local_time: Histogram::default(),
            remote_time: Histogram::default(),
            request_bytes: Histogram::default(),
            response_bytes: Histogram::default(),
        }
    }

    fn scrape(&self, to: &mut Scrape<'_>) {
        let name = match ApiKey::try_from(self.key) {
            Ok(key) => format!("{key:?}"),
            Err(_) => self.key.to_string(),
        };
        self.scrape_as(to, &name);
        if self.key == ApiKey::Fetch as i16 {
            // Kafka shows a consumer's fetches under a name of their own too, and most dashboards ask for that.
            self.scrape_as(to, "FetchConsumer");
        }
    }

    fn scrape_as(&self, to: &mut Scrape<'_>, name: &str) {
        for (version, count) in self.requests.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                let labels = [("request", name), ("version", &version.to_string())];
                to.counter(&list::REQUESTS, &labels, count as f64);
            }
        }
        for (code, count) in (-1..).zip(&self.errors) {
            let count = count.load(Relaxed);
            if count > 0 {
                let labels = [("request", name), ("error", &error_name(code))];
                to.counter(&list::REQUEST_ERRORS, &labels, count as f64);
            }
        }
        let labels = [("request", name)];
        to.times(&list::TOTAL_TIME, &labels, &self.total_time);
        to.times(&list::LOCAL_TIME, &labels, &self.local_time);
        to.times(&list::REMOTE_TIME, &labels, &self.remote_time);
        to.sizes(&list::REQUEST_BYTES, &labels, &self.request_bytes);
        to.sizes(&list::RESPONSE_BYTES, &labels, &self.response_bytes);
    }
}

/// What is left from one scrape for the next.
struct Scraper {
    windows: Windows,
    turned: Instant,
}

/// By metric and labels. Only APIs have histograms, so there is an end to them.
type Windows = BTreeMap<(usize, String), Window>;

/// One scrape as it is being written.
pub struct Scrape<'a> {
    /// By metric: in the text format, all lines of one stand together.
    lines: Vec<String>,
    windows: &'a mut Windows,
    turn: bool,
}

impl Scrape<'_> {
    pub fn gauge(&mut self, metric: &'static Metric, labels: &[(&str, &str)], value: f64) {
        self.line(metric, "", labels, None, value);
    }

    pub fn counter(&mut self, metric: &'static Metric, labels: &[(&str, &str)], value: f64) {
        self.line(metric, "", labels, None, value);
    }

    /// A histogram of microseconds, shown in milliseconds.
    fn times(&mut self, metric: &'static Metric, labels: &[(&str, &str)], histogram: &Histogram) {
        self.summary(metric, labels, histogram, 1000.0);
    }

    fn sizes(&mut self, metric: &'static Metric, labels: &[(&str, &str)], histogram: &Histogram) {
        self.summary(metric, labels, histogram, 1.0);
    }

    fn summary(
        &mut self,
        metric: &'static Metric,
        labels: &[(&str, &str)],
        histogram: &Histogram,
        per_unit: f64,
    ) {
        let key = (metric.index, format!("{labels:?}"));
        let window = self.windows.entry(key).or_default();
        let shown = window.look(
            histogram,
            QUANTILES.map(|(quantile, _)| quantile),
            self.turn,
        );
        for (place, (_, name)) in QUANTILES.iter().enumerate() {
            let value = shown
                .quantiles
                .map_or(f64::NAN, |values| values[place] as f64 / per_unit);
            self.line(metric, "", labels, Some(("quantile", name)), value);
        }
        self.line(
            metric,
            "_sum",
            labels,
            None,
            histogram.sum() as f64 / per_unit,
        );
        self.line(metric, "_count", labels, None, shown.count as f64);
    }

    fn line(
        &mut self,
        metric: &'static Metric,
        suffix: &str,
        labels: &[(&str, &str)],
        more: Option<(&str, &str)>,
        value: f64,
    ) {
        let lines = &mut self.lines[metric.index];
        lines.push_str(metric.name);
        lines.push_str(suffix);
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(more) {
            lines.push(separator);
            lines.push_str(name);
            lines.push_str("=\"");
            lines.push_str(&formatting::sanitize_label_value(value));
            lines.push('"');
            separator = ',';
        }
        if separator == ',' {
            lines.push('}');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(lines, " {value}");
    }

    fn finish(self) -> String {
        let size = self.lines.iter().map(|lines| lines.len() + 256).sum();
        let mut text = String::with_capacity(size);
        for (metric, lines) in list::ALL.iter().zip(&self.lines) {
            if !lines.is_empty() {
                let meaning = format!("{} Unit: {}.", metric.meaning, metric.unit.as_str());
                formatting::write_help_line(&mut text, metric.name, None, None, &meaning);
                formatting::write_type_line(&mut text, metric.name, None, None, metric.kind.name());
                text.push_str(lines);
            }
        }
        text
    }
}

/// As Kafka spells its errors in metrics: `UNKNOWN_TOPIC_OR_PARTITION`.
fn error_name(code: i16) -> String {
    if code == 0 {
        return "NONE".to_owned();
    }
    let Some(error) = ResponseError::try_from_code(code) else {
        return code.to_string();
    };
    let mut name = String::new();
    for letter in format!("{error:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Counters stay true whatever panicked beside them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_counts_by_itself_and_in_the_sum_and_there_also_when_it_is_gone() {
        let metrics = Metrics::default();
        metrics.count("orders", |counts| counts.appended(2, 100));
        metrics.count("orders", |counts| counts.appended(1, 50));
        metrics.count("pays", |counts| counts.appended(1, 7));
        shows(
            &metrics,
            "kafka_server_brokertopicmetrics_bytesin_total{topic=\"orders\"} 150",
        );
        shows(
            &metrics,
            "kafka_server_brokertopicmetrics_messagesin_total{topic=\"orders\"} 3",
        );
        shows(
            &metrics,
            "kafka_server_brokertopicmetrics_bytesin_total 157",
        );
        metrics.retain_topics(|topic| topic == "orders");
        let text = metrics.render();
        assert!(!text.contains("pays"), "{text}");
        shows(
            &metrics,
            "kafka_server_brokertopicmetrics_bytesin_total 157",
        );
        metrics.count("pays", |counts| counts.appended(1, 1));
        shows(
            &metrics,
            "kafka_server_brokertopicmetrics_bytesin_total 158",
        );
    }

    #[test]
    fn requests_are_counted_by_api_version_and_error_and_timed() {
        let metrics = Metrics::default();
        let api = metrics.api(ApiKey::Fetch).expect("an API of Kafka");
        api.served(Served {
            version: 17,
            total: Duration::from_millis(500),
            waited: Duration::from_millis(499),
            request_size: 64,
            response_size: 1 << 20,
        });
        api.answered(0, 1);
        api.answered(3, 1);
        shows(
            &metrics,
            "kafka_network_requestmetrics_requests_total{request=\"Fetch\",version=\"17\"} 1",
        );
        shows(
            &metrics,
            "kafka_network_requestmetrics_errors_total{request=\"Fetch\",error=\"NONE\"} 1",
        );
        shows(
            &metrics,
            "kafka_network_requestmetrics_errors_total{request=\"Fetch\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"} 1",
        );
        shows(
            &metrics,
            "kafka_network_requestmetrics_localtimems_sum{request=\"FetchConsumer\"} 1",
        );
        shows(
            &metrics,
            "kafka_network_requestmetrics_totaltimems_count{request=\"Fetch\"} 1",
        );
        shows(
            &metrics,
            "kafka_network_requestmetrics_totaltimems{request=\"Fetch\",quantile=\"0.99\"} 491.52",
        );
    }

    #[test]
    fn times_of_long_ago_do_not_show_in_quantiles() {
        let metrics = Metrics::default();
        let api = metrics.api(ApiKey::Metadata).expect("an API of Kafka");
        api.served(Served {
            version: 13,
            total: Duration::from_micros(4),
            waited: Duration::ZERO,
            request_size: 1,
            response_size: 1,
        });
        let start = Instant::now();
        let median = |text: &str, value| {
            let line = format!("totaltimems{{request=\"Metadata\",quantile=\"0.50\"}} {value}\n");
            assert!(text.contains(&line), "{text}");
        };
        for minutes in 1..=2 {
            median(&metrics.render_at(start + TURN * minutes), "0.004");
        }
        let text = metrics.render_at(start + TURN * 3);
        median(&text, "NaN");
        assert!(
            text.contains("totaltimems_count{request=\"Metadata\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn gauges_are_asked_at_every_scrape_and_stand_under_their_own_heading() {
        let metrics = Metrics::default();
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        metrics.on_scrape(move |scrape| {
            let size = counter.fetch_add(1, Relaxed) as f64;
            for partition in ["0", "1"] {
                scrape.gauge(
                    &list::LOG_SIZE,
                    &[("topic", "a\"b"), ("partition", partition)],
                    size,
                );
                scrape.gauge(
                    &list::LOG_END_OFFSET,
                    &[("topic", "a\"b"), ("partition", partition)],
                    7.0,
                );
            }
        });
        metrics.render();
        let text = metrics.render();
        let heading = "# HELP kafka_log_log_size The size of a partition's log. Unit: bytes.\n\
                       # TYPE kafka_log_log_size gauge\n\
                       kafka_log_log_size{topic=\"a\\\"b\",partition=\"0\"} 1\n\
                       kafka_log_log_size{topic=\"a\\\"b\",partition=\"1\"} 1\n";
        assert!(text.contains(heading), "{text}");
    }

    #[test]
    fn connections_are_those_created_and_not_yet_closed() {
        let metrics = Metrics::default();
        let listener = metrics.listener("TC-0");
        listener.created.fetch_add(3, Relaxed);
        listener.closed.fetch_add(1, Relaxed);
        shows(
            &metrics,
            "kafka_server_socketservermetrics_connection_count{listener=\"TC-0\"} 2",
        );
    }

    #[test]
    fn the_list_is_numbered_in_its_own_order_and_names_nothing_twice() {
        for (index, metric) in list::ALL.iter().enumerate() {
            assert_eq!(metric.index, index, "{}", metric.name);
            assert!(
                !list::ALL[..index]
                    .iter()
                    .any(|other| other.name == metric.name),
                "{}",
                metric.name
            );
            let is_total = metric.name.ends_with("_total") || metric.name.ends_with("_count");
            assert!(
                metric.kind != list::Kind::Counter || is_total,
                "{}",
                metric.name
            );
        }
    }

    #[track_caller]
    fn shows(metrics: &Metrics, want: &str) {
        let text = metrics.render();
        assert!(
            text.lines().any(|line| line == want),
            "no `{want}` in\n{text}"
        );
    }
}
