//! A cluster as the command line's tools see it: brokers that are asked, each for what it knows.
//!
//! A request goes to any broker, to a certain one, to the leader of a partition or to a group's coordinator.
//! Each call names the newest version its caller can fill in; what is sent is the newest that the broker serves
//! too. What may pass (a coordinator that is loading, a leader that is being elected) is asked again until the
//! time for the whole operation is over.
//!
//! A connection that failed, or that the broker has closed, is opened anew by the next call. Whether there is a next call
//! is the caller's decision: most tools ask once, those that run for long go on ([`Error::is_away`]).

mod error;
mod groups;
mod settings;
mod topics;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kafka_protocol::{
    messages::{
        ApiVersionsResponse, DescribeClusterRequest, DescribeClusterResponse, MetadataRequest,
        MetadataResponse, TopicName, metadata_request::MetadataRequestTopic,
    },
    protocol::{Request, StrBytes},
};
use protocol::error::ErrorCode;
use replication::peer::{self, Peer};

pub(crate) use error::{Error, Refusal};
pub(crate) use groups::{Assignment, Committed, Committer, Group, Member, decode_assignment};
pub(crate) use settings::{Settings, pairs};
pub(crate) use topics::{Listed, Partition, unknown_partition};

/// Between two attempts at what may pass.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The newest Metadata that is understood here: with topic ids and without a name where an id was asked for.
const METADATA: i16 = 12;

/// Connections to the brokers of one cluster.
#[derive(Debug)]
pub(crate) struct Client {
    settings: Settings,
    /// Where to ask when nobody is connected.
    servers: Vec<String>,
    /// The server that answered, whatever its broker's number is.
    first: Option<Peer>,
    /// `host:port` of each broker, as it advertises itself.
    addresses: BTreeMap<i32, String>,
    peers: BTreeMap<i32, Peer>,
    /// Brokers that have been where they say they are.
    reached: BTreeSet<i32>,
    deadline: Instant,
}

impl Client {
    /// Connects to the first of `servers` (`host:port,...`) that answers.
    ///
    /// If the settings say so, one that is not there yet is waited for; `waiting` is told when that begins, and why.
    pub(crate) async fn connect(
        servers: &str,
        settings: Settings,
        mut waiting: impl FnMut(&Error),
    ) -> Result<Client, Error> {
        let servers: Vec<String> = servers
            .split(',')
            .map(|server| server.trim().to_owned())
            .collect();
        for server in &servers {
            check_address(server)?;
        }
        let deadline = Instant::now() + settings.api_timeout;
        let mut client = Client {
            settings,
            servers,
            first: None,
            addresses: BTreeMap::new(),
            peers: BTreeMap::new(),
            reached: BTreeSet::new(),
            deadline,
        };
        let mut told = false;
        loop {
            let Err(err) = client.first().await else {
                return Ok(client);
            };
            // Nobody is there yet, or nobody who is ready. A name that nobody knows is not waited for.
            let passing = matches!(
                err,
                Error::Bootstrap(
                    peer::Error::Connect { .. }
                        | peer::Error::Closed { .. }
                        | peer::Error::Io { .. }
                )
            );
            if !(client.settings.waits && passing && client.has_time()) {
                return Err(err);
            }
            if !told {
                waiting(&err);
                told = true;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The connection to any broker. If there is none, the servers that were given are tried, then the brokers they told of.
    async fn first(&mut self) -> Result<&mut Peer, Error> {
        let open = self.first.take().filter(|first| !first.has_ended());
        let first = match open {
            Some(first) => first,
            None => self.connect_to_any().await?,
        };
        Ok(self.first.insert(first))
    }

    async fn connect_to_any(&self) -> Result<Peer, Error> {
        let mut last = None;
        for server in self.servers.iter().chain(self.addresses.values()) {
            match self.connect_to(server).await {
                Ok(peer) => return Ok(peer),
                Err(err) => last = Some(err),
            }
        }
        Err(match last {
            Some(err) => Error::Bootstrap(err),
            None => Error::Address(self.servers.join(",")),
        })
    }

    async fn connect_to(&self, address: &str) -> Result<Peer, peer::Error> {
        let settings = &self.settings;
        Peer::connect(address, &settings.client_id, settings.connect_timeout).await
    }

    /// What the broker that any request goes to serves.
    pub(crate) async fn versions(&mut self) -> Result<&ApiVersionsResponse, Error> {
        Ok(self.first().await?.versions())
    }

    /// The version in which that broker will be asked.
    pub(crate) async fn version<R: Request>(&mut self, newest: i16) -> Result<i16, Error> {
        Ok(self.first().await?.version::<R>(newest)?)
    }

    /// How long one request may wait for its answer.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// The same for a request's own field.
    pub(crate) fn timeout_ms(&self) -> i32 {
        i32::try_from(self.settings.request_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// Asks any broker. One that is not the controller passes on what is the controller's.
    pub(crate) async fn any<R: Request>(
        &mut self,
        newest: i16,
        request: &R,
    ) -> Result<R::Response, Error> {
        let patience = self.settings.request_timeout;
        let first = self.first().await?;
        let version = first.version::<R>(newest)?;
        let answer = first.call(version, request, patience).await;
        if answer.is_err() {
            // Its answer may still be on the way; the next request must not take it for its own.
            self.first = None;
        }
        Ok(answer?)
    }

    /// Asks the broker with this number.
    pub(crate) async fn at<R: Request>(
        &mut self,
        node: i32,
        newest: i16,
        request: &R,
    ) -> Result<R::Response, Error> {
        let patience = self.settings.request_timeout;
        self.at_for(node, newest, request, patience).await
    }

    /// The same for a request that the broker may keep for long.
    pub(crate) async fn at_for<R: Request>(
        &mut self,
        node: i32,
        newest: i16,
        request: &R,
        patience: Duration,
    ) -> Result<R::Response, Error> {
        let peer = self.peer(node).await?;
        let version = peer.version::<R>(newest)?;
        let answer = peer.call(version, request, patience).await;
        if answer.is_err() {
            self.peers.remove(&node);
        }
        Ok(answer?)
    }

    /// Sends the broker with this number a request that has no answer.
    pub(crate) async fn send_to<R: Request>(
        &mut self,
        node: i32,
        newest: i16,
        request: &R,
    ) -> Result<(), Error> {
        let peer = self.peer(node).await?;
        let version = peer.version::<R>(newest)?;
        let sent = peer.send(version, request).await;
        if sent.is_err() {
            self.peers.remove(&node);
        }
        Ok(sent?)
    }

    /// The connection to a broker, opened on first use at the address the broker advertises.
    pub(crate) async fn peer(&mut self, node: i32) -> Result<&mut Peer, Error> {
        let open = self.peers.remove(&node).filter(|peer| !peer.has_ended());
        let peer = match open {
            Some(peer) => peer,
            None => self.connect_to_node(node).await?,
        };
        self.peers.insert(node, peer);
        self.peers.get_mut(&node).ok_or(Error::NoBroker(node))
    }

    async fn connect_to_node(&mut self, node: i32) -> Result<Peer, Error> {
        if let Some(address) = self.addresses.get(&node)
            && let Ok(peer) = self.connect_to(address).await
        {
            self.reached.insert(node);
            return Ok(peer);
        }
        // Not asked for yet, or it has moved. If it is only down, so may be all others, and this is what fails.
        self.metadata(Some(&[])).await?;
        let address = self.addresses.get(&node).ok_or(Error::NoBroker(node))?;
        match self.connect_to(address).await {
            Ok(peer) => {
                self.reached.insert(node);
                Ok(peer)
            }
            Err(source) if self.reached.contains(&node) => Err(Error::Unreachable { node, source }),
            Err(source) => Err(Error::Advertised { node, source }),
        }
    }

    /// The brokers, by number, and where they say they are.
    pub(crate) async fn brokers(&mut self) -> Result<BTreeMap<i32, String>, Error> {
        self.metadata(Some(&[])).await?;
        Ok(self.addresses.clone())
    }

    /// What any broker knows of these topics, or of all. Never creates one.
    pub(crate) async fn metadata(
        &mut self,
        topics: Option<&[&str]>,
    ) -> Result<MetadataResponse, Error> {
        let topics = topics.map(|topics| {
            let topic =
                |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
            topics.iter().map(topic).collect()
        });
        let request = MetadataRequest::default()
            .with_topics(topics)
            .with_allow_auto_topic_creation(false);
        let response = self.any(METADATA, &request).await?;
        let address = |host: &StrBytes, port: i32| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let brokers = response.brokers.iter();
        self.addresses = brokers
            .map(|broker| (broker.node_id.0, address(&broker.host, broker.port)))
            .collect();
        Ok(response)
    }

    /// The cluster's id, its controller and its brokers.
    pub(crate) async fn describe_cluster(
        &mut self,
        request: &DescribeClusterRequest,
    ) -> Result<DescribeClusterResponse, Error> {
        let response = self.any(2, request).await?;
        refused(response.error_code, response.error_message.as_ref())?;
        Ok(response)
    }

    /// Waits before the next attempt at what may pass. `false`: the time is over.
    pub(crate) async fn pause(&self) -> bool {
        if !self.has_time() {
            return false;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        true
    }

    fn has_time(&self) -> bool {
        Instant::now() + RETRY_PAUSE <= self.deadline
    }

    /// Begins another operation, which has the whole time again.
    pub(crate) fn begin_operation(&mut self) {
        self.deadline = Instant::now() + self.settings.api_timeout;
    }
}

/// `Err` if a broker answered with an error code.
pub(crate) fn refused(code: i16, message: Option<&StrBytes>) -> Result<(), Refusal> {
    match ErrorCode::try_from_code(code) {
        None => Ok(()),
        Some(code) => Err(Refusal {
            code,
            message: message.map(|message| message.to_string()),
        }),
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(name.to_owned().into())
}

fn check_address(address: &str) -> Result<(), Error> {
    let wrong = || Error::Address(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok(())
}
