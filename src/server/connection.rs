//! One connection: bytes in, requests in order, answers out in the same order.
//!
//! ```text
//! socket -> inbox -> frame -> request -> dispatch -> outbox -> socket
//!                                           |           ^
//!                                           +-- waits --+      (a Produce whose replicas or disk are not done)
//! ```
//!
//! Everything happens in one task, so an answer that is ready at once costs no wake-up and no lock.
//! Requests are served one at a time, as Kafka's own broker does, with one difference: a Produce that
//! waits for its replicas leaves its place in the outbox and lets the next request be served.
//!
//! A connection owns its buffer only while bytes are on their way: a silent one keeps no buffer.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    os::fd::AsFd,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use kafka_protocol::messages::ApiKey;
use nix::libc::{MSG_MORE, MSG_NOSIGNAL};
use protocol::{frame, request, response::Encoded};
use socket2::SockRef;
use storage::log::Slice;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
};
use tracing::{debug, info};

use super::{
    Context, Role,
    dispatch::{self, Answer, Reply},
    outbox::{Meter, Outbox},
};
use crate::{broker::Broker, clock, metrics::Served};

/// Requests of one connection that may wait for replicas at the same time. Clients keep five in
/// flight by default; the rest of this number is for those that were configured otherwise.
const WAITING_MAX: usize = 64;

/// The first read of a frame; a frame that turns out larger makes the buffer grow as it arrives.
const READ_MIN: usize = 16 << 10;

/// The largest single read. Larger ones save no system calls that matter and cost memory.
const READ_MAX: usize = 1 << 20;

/// How much more room is made than has come already.
const GROWTH: usize = 3;

/// How long an empty buffer outlives the request it was made for.
const BUFFER_KEPT: Duration = Duration::from_secs(2);

/// The longest time between two looks at a connection, however long it may be silent.
const RING_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long a request waits for what it waits for when its client has closed its end. One that only reads from then on
/// looks the same.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(2);

/// Why a connection ended before its client ended it.
#[derive(Debug)]
enum Fault {
    /// The client sent what is not a request.
    Protocol(String),
    /// Nothing came or went for `connections.max.idle.ms`.
    Idle,
    /// The client has closed it, and there is something to wait for that nobody waits for any more.
    Gone,
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

pub(super) struct Connection {
    broker: Arc<Broker>,
    socket: TcpStream,
    peer: SocketAddr,
    listener: Arc<str>,
    role: Role,
    inbox: BytesMut,
    outbox: Outbox,
    idle_max: Duration,
    frame_max: usize,
}

impl Connection {
    pub(super) fn new(
        broker: Arc<Broker>,
        socket: TcpStream,
        peer: SocketAddr,
        listener: Arc<str>,
        role: Role,
    ) -> Self {
        let config = broker.config();
        Self {
            idle_max: config.connections_max_idle,
            frame_max: config.socket_request_max_bytes,
            broker,
            socket,
            peer,
            listener,
            role,
            inbox: BytesMut::new(),
            outbox: Outbox::default(),
        }
    }

    /// Serves the client until it leaves, misbehaves or falls silent. What ends a connection is
    /// logged here, once, with the peer's address; at a lower level if it was just now.
    pub(super) async fn serve(mut self) {
        match self.run().await {
            Ok(()) | Err(Fault::Gone) => {
                debug!(peer = %self.peer, "the client closed the connection")
            }
            Err(Fault::Io(err)) => debug!(peer = %self.peer, %err, "the connection broke"),
            Err(Fault::Idle) => {
                let listener = self.broker.metrics().listener(&self.listener);
                listener.expired.fetch_add(1, Relaxed);
                let silent_ms = self.idle_max.as_millis();
                self.tell(&format!(
                    "silent for {silent_ms} ms (connections.max.idle.ms)"
                ));
            }
            Err(Fault::Protocol(reason)) => self.tell(&reason),
        }
    }

    /// Says why the connection is closed, unless the same was said of this client a short while ago.
    fn tell(&self, reason: &str) {
        let peer = self.peer;
        if self.broker.is_news(peer.ip(), reason) {
            info!(%peer, "closing the connection: {reason}");
        } else {
            debug!(%peer, "closing the connection: {reason}");
        }
    }

    async fn run(&mut self) -> Result<(), Fault> {
        let idle = tokio::time::sleep(self.idle_max.min(BUFFER_KEPT));
        let stopping = self.broker.stopping();
        tokio::pin!(idle, stopping);
        let mut active_at = Instant::now();
        let mut is_stopping = false;
        loop {
            self.serve_buffered().await?;
            if is_stopping && self.outbox.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                (meter, reply) = self.outbox.next() => self.write(meter, reply).await?,
                // What has been asked is answered, nothing more is read: from a client that never pauses there
                // is always more.
                () = &mut stopping, if !is_stopping => {
                    is_stopping = true;
                    continue;
                }
                ready = self.socket.readable(), if !is_stopping && self.outbox.len() < WAITING_MAX => {
                    ready?;
                    if !self.read().await? {
                        return Ok(());
                    }
                }
                // The timer is not moved on every request: when it rings it looks how long it has
                // really been and sets itself anew.
                () = &mut idle => {
                    let silent = active_at.elapsed();
                    if self.idle_max <= silent {
                        return Err(Fault::Idle);
                    }
                    if BUFFER_KEPT <= silent && self.inbox.is_empty() {
                        self.inbox = BytesMut::new();
                    }
                    idle.as_mut().reset(next_ring(active_at, silent, self.idle_max).into());
                    continue;
                }
            }
            active_at = Instant::now();
            if BUFFER_KEPT < idle.deadline().duration_since(active_at.into()) {
                let next = next_ring(active_at, Duration::ZERO, self.idle_max);
                idle.as_mut().reset(next.into());
            }
        }
    }

    /// Reads what has arrived, up to the buffer's room. `false` when the client has closed.
    async fn read(&mut self) -> Result<bool, Fault> {
        let missing = frame::wanted(&self.inbox);
        // A length prefix is a claim, not a reservation: the buffer grows with what has come.
        let room = missing
            .min(self.inbox.len() * GROWTH)
            .clamp(READ_MIN, READ_MAX);
        self.inbox.reserve(room);
        // Once: who waits here answers nobody. And not by `try_read_buf`, which does not know by a short read that nothing is
        // left, as this does: each request would cost a call more that only says so.
        let mut read = pin!(self.socket.read_buf(&mut self.inbox));
        match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
            Poll::Ready(Ok(size)) => Ok(size > 0),
            Poll::Ready(Err(err)) => Err(err.into()),
            Poll::Pending => Ok(true),
        }
    }

    /// Serves every whole request in the buffer.
    async fn serve_buffered(&mut self) -> Result<(), Fault> {
        while self.outbox.len() < WAITING_MAX {
            let next = frame::next(&mut self.inbox, self.frame_max)
                .map_err(|err| Fault::Protocol(err.to_string()))?;
            let Some(frame) = next else { break };
            self.serve_frame(frame).await?;
        }
        Ok(())
    }

    async fn serve_frame(&mut self, frame: bytes::Bytes) -> Result<(), Fault> {
        let size = frame.len();
        let request = request::decode(frame).map_err(|err| Fault::Protocol(err.to_string()))?;
        let api_key = request.header.api_key;
        if !self.role.serves(api_key) {
            return Err(Fault::Protocol(format!(
                "{api_key:?} is not for a controller, whose listener this is"
            )));
        }
        let ctx = Context {
            received_at: Instant::now(),
            now: clock::now(),
            version: request.header.version,
            client_id: request.header.client_id.clone(),
            peer: self.peer.ip(),
            listener: Arc::clone(&self.listener),
            role: self.role,
        };
        let mut meter = Meter {
            api_key: request.header.api_key,
            version: ctx.version,
            size,
            received_at: ctx.received_at,
            parked_at: None,
            waited: Duration::ZERO,
        };
        match dispatch::dispatch(&self.broker, ctx, request) {
            Answer::Ready(reply) if self.outbox.is_empty() => self.write(meter, reply).await?,
            Answer::Ready(reply) => self.outbox.push(meter, reply),
            Answer::InOrder(pending) => {
                // The next request may not be looked at before this one is done, but answers that
                // were waiting before it may leave meanwhile.
                if meter.api_key == ApiKey::Fetch {
                    meter.parked_at = Some(Instant::now());
                }
                self.outbox.push_pending(meter, pending);
                match meter.api_key {
                    ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup => {
                        self.answer_unless_gone().await?;
                    }
                    // What has begun to change something is not left halfway.
                    _ => self.answer().await?,
                }
            }
            Answer::Later(pending) => {
                meter.parked_at = Some(Instant::now());
                self.outbox.push_pending(meter, pending);
            }
        }
        Ok(())
    }

    async fn answer(&mut self) -> Result<(), Fault> {
        while !self.outbox.is_empty() {
            let (meter, reply) = self.outbox.next().await;
            self.write(meter, reply).await?;
        }
        Ok(())
    }

    /// For what waits until something happens, which may be for as long as the client likes: it may go before, and a
    /// connection on which nothing moves may be as silent as any other.
    async fn answer_unless_gone(&mut self) -> Result<(), Fault> {
        while !self.outbox.is_empty() {
            tokio::select! {
                biased;
                (meter, reply) = self.outbox.next() => self.write(meter, reply).await?,
                () = hung_up(&self.socket) => return Err(Fault::Gone),
                () = tokio::time::sleep(self.idle_max) => return Err(Fault::Idle),
            }
        }
        Ok(())
    }

    async fn write(&mut self, meter: Meter, reply: Reply) -> Result<(), Fault> {
        let response_size = reply.size();
        // A client that does not read its answers is as silent as one that does not ask.
        let written = match reply {
            Reply::None => Ok(Ok(())),
            Reply::Close(reason) => return Err(Fault::Protocol(reason)),
            Reply::Bytes(bytes) => {
                tokio::time::timeout(self.idle_max, self.socket.write_all(&bytes)).await
            }
            Reply::Files(encoded, slices) => {
                let files = write_files(&mut self.socket, encoded, &slices);
                tokio::time::timeout(self.idle_max, files).await
            }
        };
        written.map_err(|_| Fault::Idle)??;
        if let Some(api) = self.broker.metrics().api(meter.api_key) {
            api.served(Served {
                version: meter.version,
                total: meter.received_at.elapsed(),
                waited: meter.waited,
                request_size: meter.size,
                response_size,
            });
        }
        Ok(())
    }
}

/// When to look again at a connection on which nothing has moved for so long since `active_at`: first for the buffer's
/// sake, then for its own.
fn next_ring(active_at: Instant, silent: Duration, idle_max: Duration) -> Instant {
    let next = if silent < BUFFER_KEPT {
        BUFFER_KEPT
    } else {
        silent.saturating_add(RING_MAX)
    };
    active_at + next.min(idle_max)
}

/// Completes when the client has closed its end of the connection and has had some time to read an answer all the same.
async fn hung_up(socket: &TcpStream) {
    // Who is interested in what is urgent is told of the end of the stream, but not of what comes before it. That may
    // lie there unread: clients send the next request while one waits.
    match socket.ready(Interest::PRIORITY).await {
        Ok(ready) if !ready.is_read_closed() => std::future::pending().await,
        _ => tokio::time::sleep(HALF_CLOSED_MAX).await,
    }
}

/// Writes an answer whose holes are filled from files.
async fn write_files(socket: &mut TcpStream, encoded: Encoded, slices: &[Slice]) -> io::Result<()> {
    let mut written = 0;
    for hole in &encoded.holes {
        // The records follow at once: they shall leave in the same segment, and wake the client once.
        let head = &encoded.head[written..hole.at];
        write_all(socket, head, MSG_MORE).await?;
        written = hole.at;
        let slice = &slices[hole.index];
        let mut sent = 0;
        while sent < hole.size {
            let n = socket
                .async_io(Interest::WRITABLE, || slice.send(socket.as_fd(), sent))
                .await?;
            if n == 0 {
                // The file is shorter than it was when the answer was made: it was truncated. The
                // client has a frame it can only give up on.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            sent += n;
        }
    }
    write_all(socket, &encoded.head[written..], 0).await
}

async fn write_all(socket: &mut TcpStream, bytes: &[u8], flags: i32) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        let rest = &bytes[written..];
        let send = || SockRef::from(&*socket).send_with_flags(rest, flags | MSG_NOSIGNAL);
        written += socket.async_io(Interest::WRITABLE, send).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_looked_at_for_its_buffer_and_then_for_itself() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let rings = [
            (Duration::ZERO, minute, BUFFER_KEPT),
            (BUFFER_KEPT, minute, minute),
            (Duration::ZERO, BUFFER_KEPT / 2, BUFFER_KEPT / 2),
        ];
        for (silent, idle_max, after) in rings {
            assert_eq!(next_ring(now, silent, idle_max), now + after);
        }
    }

    /// `connections.max.idle.ms=-1`: there is no such moment.
    #[test]
    fn who_may_be_silent_for_ever_is_looked_at_once_in_a_long_while() {
        let now = Instant::now();
        assert_eq!(
            next_ring(now, Duration::ZERO, Duration::MAX),
            now + BUFFER_KEPT
        );
        let day = Duration::from_secs(24 * 3600);
        for silent in [BUFFER_KEPT, day, 365 * day] {
            let next = next_ring(now, silent, Duration::MAX);
            assert!(now + silent + day <= next, "{silent:?}");
        }
    }
}
