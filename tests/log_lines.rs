//! What the log says of clients that misbehave: who and why, once, and no more of it than somebody can read.

mod common;

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{Mutex, OnceLock},
};

use common::TestBroker;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

#[test]
fn why_a_connection_is_closed_is_said_in_one_line_with_its_address() {
    const HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    listen();
    let broker = TestBroker::start_with(&[("connections.max.idle.ms", "1000")]);
    for (bytes, reason) in [
        (HELLO, "the hello of TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "an HTTP request"),
        (&[0x7f, 0xff, 0xff, 0xff], "a frame of 2147483647 bytes"),
        (&[0, 0, 0, 8, 0x03, 0xe7, 0, 0, 0, 0, 0, 1], "999"),
        (&[0, 0, 0, 2, 0, 3], "closing the connection: "),
        (b"", "silent for 1000 ms"),
    ] {
        let mut client = broker.client();
        let address = client.local_address();
        client.send_raw(bytes).expect("the broker reads");
        assert!(client.is_closed(), "{reason}");
        let said = said_of(address);
        assert!(
            matches!(&*said, [line] if line.contains("INFO") && line.contains(reason)),
            "{reason}: {said:#?}"
        );
    }
}

#[test]
fn a_crowd_that_comes_back_as_often_as_it_is_closed_is_told_of_once() {
    const COUNT: usize = 200;
    listen();
    let broker = TestBroker::start_with(&[("max.connections.per.ip", "1")]);
    let mut addresses = Vec::new();
    for _ in 0..COUNT {
        let mut client = broker.client();
        addresses.push(client.local_address());
        client
            .send_raw(b"GET /metrics HTTP/1.1\r\n\r\n")
            .expect("the broker reads");
        assert!(client.is_closed());
    }
    let of_faults: Vec<String> = addresses.drain(..).flat_map(said_of).collect();
    assert!(
        of_faults
            .iter()
            .filter(|line| line.contains("HTTP"))
            .count()
            == 1,
        "{of_faults:#?}"
    );

    let mut first = broker.client();
    while first
        .try_call(0, &ApiVersionsRequest::default())
        .map(|_: ApiVersionsResponse| ())
        .is_err()
    {
        // The last of the crowd may still have been counted.
        first = broker.client();
    }
    for _ in 0..COUNT {
        let mut client = broker.client();
        addresses.push(client.local_address());
        assert!(client.is_closed());
    }
    let of_refusals: Vec<String> = addresses.into_iter().flat_map(said_of).collect();
    assert!(of_refusals.len() <= 1, "{of_refusals:#?}");
}

/// The lines with this client's address so far. A closed connection has been told of before it was closed.
fn said_of(address: SocketAddr) -> Vec<String> {
    let lines = LINES.get().expect("it is listened");
    let text = String::from_utf8(lines.lock().expect("nobody panics").clone()).expect("text");
    let peer = format!("peer={address}");
    let lines = text
        .lines()
        .filter(|line| line.split(' ').any(|word| word == peer));
    lines.map(str::to_owned).collect()
}

static LINES: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();

/// Of all brokers in this process, from now on.
fn listen() {
    LINES.get_or_init(|| {
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(|| Lines);
        log.init();
        Mutex::default()
    });
}

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(lines) = LINES.get() {
            lines
                .lock()
                .expect("nobody panics")
                .extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
