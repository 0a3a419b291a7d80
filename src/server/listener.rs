//! Accepting connections, within `max.connections` and `max.connections.per.ip`.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::AbortHandle,
};
use tracing::{debug, info, warn};

use super::{Role, connection::Connection};
use crate::{broker::Broker, config::Sockets, metrics::Listener as Counts};

/// How long to wait after the system had no descriptor or memory for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const REFUSED: &str = "refusing a connection: max.connections, max.connections.per.ip or the limit of open files is reached";

/// A bound socket of one named listener.
#[derive(Debug)]
pub(crate) struct Listener {
    name: Arc<str>,
    role: Role,
    socket: TcpListener,
}

impl Listener {
    /// Binds to the first address `host:port` stands for. An empty host is every address, IPv6 ones
    /// included where the system has them.
    pub(crate) async fn bind(
        name: &str,
        role: Role,
        host: &str,
        port: u16,
        sockets: Sockets,
    ) -> io::Result<Self> {
        let addresses: Vec<SocketAddr> = match host {
            "" => vec![
                (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
                (std::net::Ipv4Addr::UNSPECIFIED, port).into(),
            ],
            host => tokio::net::lookup_host((host, port)).await?.collect(),
        };
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for address in addresses {
            match bind(address, sockets) {
                Ok(socket) => {
                    return Ok(Self {
                        name: name.into(),
                        role,
                        socket,
                    });
                }
                Err(err) => failed = err,
            }
        }
        Err(failed)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the broker stops.
    pub(crate) async fn serve(self, broker: Arc<Broker>) {
        let counts = broker.metrics().listener(&self.name);
        let stopping = broker.stopping();
        tokio::pin!(stopping);
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = &mut stopping => return,
            };
            match accepted {
                Ok((socket, peer)) => {
                    // A socket that takes both kinds of address shows IPv4 ones as IPv6 ones, which nobody
                    // writes into a configuration or recognises in a list of members.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    self.accept(&broker, &counts, socket, peer);
                }
                Err(err) => {
                    // Out of descriptors, usually: there is nothing to do but to wait for some.
                    warn!(listener = &*self.name, %err, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn accept(
        &self,
        broker: &Arc<Broker>,
        counts: &Arc<Counts>,
        socket: TcpStream,
        peer: SocketAddr,
    ) {
        let config = broker.config();
        let limits = Limits {
            all: config.max_connections,
            from_one_ip: broker
                .connections()
                .own_limit(&peer.ip())
                .unwrap_or(config.max_connections_per_ip),
        };
        let Some(seat) = broker.connections().sit_down(peer.ip(), limits) else {
            counts.refused.fetch_add(1, Relaxed);
            if broker.is_news(peer.ip(), REFUSED) {
                info!(%peer, "{REFUSED}");
            } else {
                debug!(%peer, "{REFUSED}");
            }
            return;
        };
        // Answers are written whole; waiting for more to send would only delay them.
        if let Err(err) = socket.set_nodelay(true) {
            warn!(%peer, %err, "cannot set TCP_NODELAY");
        }
        // Whose machine is gone never says so, and a connection may have nothing to send for long.
        if let Err(err) = SockRef::from(&socket).set_keepalive(true) {
            warn!(%peer, %err, "cannot set SO_KEEPALIVE");
        }
        let connection = Connection::new(
            Arc::clone(broker),
            socket,
            peer,
            Arc::clone(&self.name),
            self.role,
        );
        counts.created.fetch_add(1, Relaxed);
        let open = Open(Arc::clone(counts));
        let id = seat.id;
        let task = tokio::spawn(async move {
            connection.serve().await;
            drop((seat, open));
        });
        broker.connections().remember(id, task.abort_handle());
    }
}

/// A connection that has been counted as created; counted as closed when dropped.
struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Relaxed);
    }
}

fn bind(address: SocketAddr, sockets: Sockets) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restarted broker must get its port back while old connections are still being closed.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Accepted connections inherit both, and the window that is offered to them is fixed when they connect.
    if let Some(size) = sockets.send_buffer_bytes {
        socket.set_send_buffer_size(size)?;
    }
    if let Some(size) = sockets.receive_buffer_bytes {
        socket.set_recv_buffer_size(size)?;
    }
    socket.listen(sockets.listen_backlog)?;
    TcpListener::from_std(socket.into())
}

/// Limits on connections that hold for one address each, instead of `max.connections.per.ip`.
#[derive(Debug, Default)]
pub(crate) struct OwnLimits(HashMap<IpAddr, usize>);

impl OwnLimits {
    /// Looks the hosts up, which may take a while. One without an address is an error, as in Kafka: its limit would
    /// do nothing.
    pub(crate) fn resolve(limits: &BTreeMap<String, usize>) -> Result<Self, Unresolved> {
        let mut own = HashMap::new();
        for (host, limit) in limits {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let found = (bare, 0).to_socket_addrs().map_err(|source| Unresolved {
                host: host.clone(),
                source,
            })?;
            own.extend(found.map(|found| (found.ip().to_canonical(), *limit)));
        }
        Ok(Self(own))
    }
}

/// A host of `max.connections.per.ip.overrides` that has no address.
#[derive(Debug)]
pub(crate) struct Unresolved {
    pub(crate) host: String,
    pub(crate) source: io::Error,
}

/// Who is connected, counted.
#[derive(Debug)]
pub(crate) struct Connections {
    /// For more there are no file descriptors.
    max: usize,
    /// `max.connections.per.ip.overrides`.
    own_limits: ArcSwap<OwnLimits>,
    seats: Mutex<Seats>,
    /// Woken when the last connection has ended.
    empty: Notify,
}

#[derive(Debug, Default)]
struct Seats {
    taken: usize,
    by_ip: HashMap<IpAddr, usize>,
    /// What serves each of them, by the seat's number; not known at first.
    tasks: HashMap<u64, Option<AbortHandle>>,
    next_id: u64,
}

/// How many may be connected; both can be changed while they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) all: usize,
    pub(super) from_one_ip: usize,
}

/// One connection's place; free again when dropped.
pub(crate) struct Seat {
    connections: Arc<Connections>,
    ip: IpAddr,
    id: u64,
}

impl Connections {
    pub(crate) fn new(max: usize, own_limits: OwnLimits) -> Self {
        Self {
            max,
            own_limits: ArcSwap::from_pointee(own_limits),
            seats: Mutex::default(),
            empty: Notify::new(),
        }
    }

    /// From now on these hold, for those who come.
    pub(crate) fn set_own_limits(&self, limits: OwnLimits) {
        self.own_limits.store(Arc::new(limits));
    }

    fn own_limit(&self, address: &IpAddr) -> Option<usize> {
        self.own_limits.load().0.get(address).copied()
    }

    pub(crate) fn count(&self) -> usize {
        self.seats().taken
    }

    /// Returns when nobody is connected any more.
    pub(crate) async fn gone(&self) {
        loop {
            let empty = self.empty.notified();
            if self.count() == 0 {
                return;
            }
            empty.await;
        }
    }

    pub(super) fn sit_down(self: &Arc<Self>, ip: IpAddr, limits: Limits) -> Option<Seat> {
        let mut seats = self.seats();
        let from_ip = seats.by_ip.get(&ip).copied().unwrap_or(0);
        if limits.all.min(self.max) <= seats.taken || limits.from_one_ip <= from_ip {
            return None;
        }
        seats.taken += 1;
        seats.by_ip.insert(ip, from_ip + 1);
        let id = seats.next_id;
        seats.next_id += 1;
        seats.tasks.insert(id, None);
        Some(Seat {
            connections: Arc::clone(self),
            ip,
            id,
        })
    }

    /// `task` is what serves the connection, which may have ended by now.
    fn remember(&self, id: u64, task: AbortHandle) {
        if let Some(known) = self.seats().tasks.get_mut(&id) {
            *known = Some(task);
        }
    }

    /// Ends every connection, whatever it waits for.
    pub(crate) fn cut_off(&self) {
        for task in self.seats().tasks.values().flatten() {
            task.abort();
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.connections.seats();
        seats.taken -= 1;
        seats.tasks.remove(&self.id);
        if seats.taken == 0 {
            self.connections.empty.notify_waiters();
        }
        if let Some(count) = seats.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                seats.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_its_connection_ends() {
        let connections = Arc::new(Connections::new(usize::MAX, OwnLimits::default()));
        let limits = Limits {
            all: 3,
            from_one_ip: 2,
        };
        let (here, there) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = connections
            .sit_down(here, limits)
            .expect("the first of two");
        let _second = connections
            .sit_down(here, limits)
            .expect("the second of two");
        assert!(
            connections.sit_down(here, limits).is_none(),
            "two from one address are enough"
        );
        let _third = connections
            .sit_down(there, limits)
            .expect("another address");
        assert!(
            connections.sit_down(there, limits).is_none(),
            "three are enough"
        );
        drop(first);
        let _again = connections.sit_down(here, limits).expect("a free seat");
        let fewer = Limits { all: 2, ..limits };
        assert!(
            connections.sit_down(there, fewer).is_none(),
            "there are more than that already"
        );
    }

    /// The system doubles what it is asked for, to have room for its own accounts.
    #[tokio::test]
    async fn buffers_are_as_large_as_was_asked_for() {
        let asked = Sockets {
            listen_backlog: 7,
            send_buffer_bytes: Some(30_000),
            receive_buffer_bytes: Some(40_000),
        };
        let listener = Listener::bind("PLAINTEXT", Role::Broker, "127.0.0.1", 0, asked);
        let listener = listener.await.expect("a free port").socket;
        let client = TcpStream::connect(listener.local_addr().expect("bound"));
        let (accepted, _client) = tokio::join!(listener.accept(), client);
        let (accepted, _) = accepted.expect("a connection");
        let accepted = SockRef::from(&accepted);
        let sizes = [
            accepted.send_buffer_size().expect("a size"),
            accepted.recv_buffer_size().expect("a size"),
        ];
        assert_eq!(sizes, [60_000, 80_000]);
    }
}
