//! Brokers in this process, on port 0 and in temporary directories, and a client that sends exactly
//! the bytes a test wants.

#![allow(dead_code, reason = "each test uses its part of this")]

pub(crate) mod requests;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, ProduceRequest,
        ProduceResponse, RequestHeader, ResponseHeader, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};
use protocol::batch::{Batch, Builder};
use sordini::{Config, Running, StartError};
use storage::disk::{self, Disk};
use tempfile::TempDir;

/// When a disk in memory says that its files were changed.
pub(crate) const NOW: i64 = 1_700_000_000_000;

/// A broker on a port of the system's choice. Stops when dropped.
pub(crate) struct TestBroker {
    pub(crate) running: Option<Running>,
    pub(crate) address: SocketAddr,
    pub(crate) dir: TempDir,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl TestBroker {
    pub(crate) fn start() -> TestBroker {
        Self::start_with(&[])
    }

    /// Starts with more properties than a test's broker has anyway.
    pub(crate) fn start_with(properties: &[(&str, &str)]) -> TestBroker {
        Self::start_in(
            tempfile::tempdir().expect("a temporary directory"),
            properties,
        )
    }

    pub(crate) fn start_in(dir: TempDir, properties: &[(&str, &str)]) -> TestBroker {
        Self::start_on(disk::real(), dir, properties)
    }

    pub(crate) fn start_on(
        disk: Arc<dyn Disk>,
        dir: TempDir,
        properties: &[(&str, &str)],
    ) -> TestBroker {
        Self::try_start_on(disk, dir, properties).expect("the broker starts")
    }

    /// The same, where it may not start.
    pub(crate) fn try_start(properties: &[(&str, &str)]) -> Result<TestBroker, StartError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self::try_start_on(disk::real(), dir, properties)
    }

    fn try_start_on(
        disk: Arc<dyn Disk>,
        dir: TempDir,
        properties: &[(&str, &str)],
    ) -> Result<TestBroker, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let log_dir = dir.path().join("data").display().to_string();
        let mut all = vec![
            ("log.dirs", &*log_dir),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("sordini.metrics.listener", ""),
        ];
        all.extend_from_slice(properties);
        let config = Config::single_node(&all).expect("a valid configuration");
        let running = runtime.block_on(sordini::start_on(disk, config))?;
        let address = running.address("PLAINTEXT").expect("the listener is bound");
        Ok(TestBroker {
            running: Some(running),
            address,
            dir,
            runtime,
        })
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// The value of the first metric that begins like this.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let running = self.running.as_ref().expect("it runs");
        let text = running.broker().metrics().render();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.rsplit(' ').next())
            .and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    /// Stops in an orderly way and starts again on the same data.
    pub(crate) fn restart(mut self, properties: &[(&str, &str)]) -> TestBroker {
        self.stop();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a directory"));
        Self::start_in(dir, properties)
    }

    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One connection, one request at a time.
pub(crate) struct Client {
    socket: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        Self::try_connect(address).expect("the broker listens")
    }

    /// The same, where the broker may be gone.
    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Client> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.set_nodelay(true)?;
        Ok(Client {
            socket,
            correlation_id: 0,
        })
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is connected")
    }

    /// Sends a request and decodes its answer.
    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive::<R>(version)
    }

    /// The same, where the broker may be gone.
    pub(crate) fn try_call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> io::Result<R::Response> {
        self.try_send(version, request)?;
        let frame = self.receive_frame()?;
        Ok(decode::<R>(frame, version))
    }

    pub(crate) fn try_send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        let body = self.encode(version, request);
        self.send_raw(&framed(&body))
    }

    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) {
        let body = self.encode(version, request);
        self.send_frame(&body);
    }

    fn encode<R: Request>(&mut self, version: i16, request: &R) -> BytesMut {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("test")));
        let mut body = BytesMut::new();
        header
            .encode(&mut body, R::header_version(version))
            .expect("a header encodes");
        request
            .encode(&mut body, version)
            .expect("the request encodes");
        body
    }

    pub(crate) fn send_frame(&mut self, frame: &[u8]) {
        self.socket
            .write_all(&framed(frame))
            .expect("the broker reads");
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    pub(crate) fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let frame = self.receive_frame().expect("the broker answers");
        decode::<R>(frame, version)
    }

    /// The same, where the broker may be gone.
    pub(crate) fn try_receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        Ok(decode::<R>(self.receive_frame()?, version))
    }

    pub(crate) fn receive_frame(&mut self) -> io::Result<Bytes> {
        let mut size = [0; 4];
        self.socket.read_exact(&mut size)?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.socket.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    /// Waits for the broker to close the connection; `false` if it says something instead.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.socket.read(&mut [0]), Ok(0) | Err(_))
    }

    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }

    pub(crate) fn create_topic_with(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) {
        let request = Self::new_topic(name, partitions, configs);
        let response: CreateTopicsResponse = self.call(7, &request);
        let topic = &response.topics[0];
        assert_eq!(
            (topic.error_code, &topic.error_message),
            (0, &None),
            "{name} is created"
        );
    }

    pub(crate) fn new_topic(
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> CreateTopicsRequest {
        let config = |(name, value): &(&str, &str)| {
            CreatableTopicConfig::default()
                .with_name((*name).to_owned().into())
                .with_value(Some((*value).to_owned().into()))
        };
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.iter().map(config).collect());
        CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000)
    }

    /// Produces one batch to a partition with `acks=all`.
    pub(crate) fn produce(&mut self, topic: &str, index: i32, records: Bytes) -> ProduceResponse {
        self.call(9, &produce_request(topic, index, records))
    }

    /// Fetches from one partition without a session, waiting up to 10 s for the first byte.
    pub(crate) fn fetch(&mut self, topic: &str, index: i32, offset: i64) -> FetchResponse {
        self.call(12, &fetch_request(topic, index, offset))
    }
}

/// A frame with its size before it.
pub(crate) fn framed(frame: &[u8]) -> Vec<u8> {
    let size = u32::try_from(frame.len()).expect("a small frame");
    [&size.to_be_bytes(), frame].concat()
}

fn decode<R: Request>(mut frame: Bytes, version: i16) -> R::Response {
    let version_of_header = R::Response::header_version(version);
    ResponseHeader::decode(&mut frame, version_of_header).expect("a response header");
    let response = R::Response::decode(&mut frame, version).expect("the response decodes");
    assert!(
        frame.is_empty(),
        "{} bytes follow the response",
        frame.len()
    );
    response
}

/// The next answer, which was asked for with bytes of the test's own.
pub(crate) fn receive_of<T: Decodable>(
    client: &mut Client,
    header_version: i16,
    version: i16,
) -> T {
    let mut frame = client.receive_frame().expect("the broker answers");
    ResponseHeader::decode(&mut frame, header_version).expect("a response header");
    let response = T::decode(&mut frame, version).expect("the response decodes");
    assert!(
        frame.is_empty(),
        "{} bytes follow the response",
        frame.len()
    );
    response
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(name.to_owned().into())
}

pub(crate) fn produce_request(topic: &str, index: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(index)
        .with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic])
}

pub(crate) fn fetch_request(topic: &str, index: i32, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(index)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(10_000)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// A batch of records with these values, all of the same time.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    let mut builder = Builder::new();
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
    }
    builder
        .build()
        .expect("records make a batch")
        .bytes()
        .clone()
}

/// The values of all records in a fetch answer, with their offsets.
pub(crate) fn values(records: Bytes) -> Vec<(i64, String)> {
    let batches = Batch::split(records).expect("whole batches");
    let records = batches
        .iter()
        .flat_map(|batch| batch.records(1 << 20).expect("records"));
    records
        .map(|record| record.expect("a record"))
        .map(|record| {
            let value = record.value.unwrap_or_default();
            (record.offset, String::from_utf8_lossy(&value).into_owned())
        })
        .collect()
}

/// What a `read_committed` consumer shows of a partition's share of a fetch, and where it goes on.
pub(crate) fn read_committed(partition: &PartitionData) -> (Vec<(i64, String)>, Option<i64>) {
    let mut aborted = partition.aborted_transactions.clone().unwrap_or_default();
    aborted.sort_by_key(|aborted| std::cmp::Reverse(aborted.first_offset));
    let mut hidden = Vec::new();
    let mut shown = Vec::new();
    let mut next_offset = None;
    let records = partition.records.clone().unwrap_or_default();
    for batch in Batch::split(records).expect("batches") {
        let header = batch.header();
        next_offset = Some(header.next_offset());
        // Also before a marker: it may be all that is left of its transaction.
        while let Some(begun) = aborted.pop_if(|it| it.first_offset < header.next_offset()) {
            hidden.push(begun.producer_id.0);
        }
        if header.is_control() {
            hidden.retain(|id| *id != header.producer_id);
            continue;
        }
        // What is in no transaction is shown, whatever else its producer did.
        if header.is_transactional() && hidden.contains(&header.producer_id) {
            continue;
        }
        for record in batch.records(1 << 20).expect("records") {
            let record = record.expect("a record");
            let value = record.value.unwrap_or_default();
            shown.push((record.offset, String::from_utf8_lossy(&value).into_owned()));
        }
    }
    (shown, next_offset)
}
