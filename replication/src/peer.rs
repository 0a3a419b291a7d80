//! A connection to another broker: a request goes out, its response comes back.
//!
//! Connecting includes asking which versions the other side serves, so a caller says how new a request it
//! can make and gets the newest that both sides know. Requests are sent one at a time.

use std::{fmt, io, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};
use protocol::{
    error::ErrorCode,
    frame::{self, TooLarge},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The largest response that is read. What a peer may claim is bounded; what it sends is kept as it arrives.
const RESPONSE_MAX: usize = 256 << 20;

/// The room that is made before each read.
const READ_SIZE: usize = 16 << 10;

/// The version in which a peer is first asked for its versions. From 4 on it says all of its features; up to 3 it leaves out
/// those that may be at level 0.
const API_VERSIONS: i16 = 4;

/// An open connection to a broker that has said which versions it serves.
#[derive(Debug)]
pub struct Peer {
    address: String,
    client_id: StrBytes,
    socket: TcpStream,
    inbox: BytesMut,
    correlation_id: i32,
    versions: ApiVersionsResponse,
}

/// Why a peer did not answer; each says what was tried and on what address.
#[derive(Debug)]
pub enum Error {
    /// The address is not `host:port`, or nobody knows the host.
    Address { address: String, reason: String },
    /// Nothing accepted the connection.
    Connect { address: String, source: io::Error },
    /// No answer came in time.
    Silent { address: String, waited: Duration },
    /// The connection ended while an answer was awaited.
    Closed { address: String, request: ApiKey },
    /// Reading or writing failed.
    Io { address: String, source: io::Error },
    /// What came back is not the answer: something other than a broker listens there, or it listens for TLS.
    NotKafka { address: String, reason: String },
    /// Both sides know the request, but no version of it in common; or this peer does not serve it at all.
    Unserved {
        address: String,
        request: ApiKey,
        /// What the peer serves.
        served: Option<(i16, i16)>,
    },
    /// This side cannot put the request into that version.
    Unsendable { request: ApiKey, reason: String },
}

impl Peer {
    /// Connects to `host:port` and asks which versions are served there, all within `patience`.
    pub async fn connect(
        address: &str,
        client_id: &str,
        patience: Duration,
    ) -> Result<Peer, Error> {
        let connecting = Self::open(address, client_id, patience);
        match tokio::time::timeout(patience, connecting).await {
            Ok(peer) => peer,
            Err(_) => Err(silent(address, patience)),
        }
    }

    async fn open(address: &str, client_id: &str, patience: Duration) -> Result<Peer, Error> {
        let resolved: Vec<_> = tokio::net::lookup_host(address)
            .await
            .map_err(|err| Error::Address {
                address: address.to_owned(),
                reason: err.to_string(),
            })?
            .collect();
        let socket = TcpStream::connect(&resolved[..])
            .await
            .map_err(|source| Error::Connect {
                address: address.to_owned(),
                source,
            })?;
        let io = |source| Error::Io {
            address: address.to_owned(),
            source,
        };
        socket.set_nodelay(true).map_err(io)?;
        let mut peer = Peer {
            address: address.to_owned(),
            client_id: client_id.to_owned().into(),
            socket,
            inbox: BytesMut::new(),
            correlation_id: 0,
            versions: ApiVersionsResponse::default(),
        };
        peer.versions = peer.ask_versions(patience).await?;
        Ok(peer)
    }

    /// A broker that does not know our version of the question answers in version 0, and says there how new a question it
    /// understands.
    async fn ask_versions(&mut self, patience: Duration) -> Result<ApiVersionsResponse, Error> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("sordini"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut version = API_VERSIONS;
        loop {
            self.send(version, &request).await?;
            let body = self
                .receive::<ApiVersionsRequest>(version, patience)
                .await?;
            let refused = body.first_chunk::<2>().is_some_and(|code| {
                i16::from_be_bytes(*code) == ErrorCode::UnsupportedVersion.code()
            });
            let answered = if refused { 0 } else { version };
            let response: ApiVersionsResponse = self.decode(body, ApiKey::ApiVersions, |b| {
                Decodable::decode(b, answered)
            })?;
            if !refused || version == 0 {
                return Ok(response);
            }
            // Brokers before 2.4 only refuse.
            let understood = served(&response, ApiVersionsRequest::KEY).map_or(0, |(_, max)| max);
            version = understood.clamp(0, version - 1);
        }
    }

    /// Has the other side closed the connection, or said something nobody asked for, while nothing was awaited?
    pub fn has_ended(&self) -> bool {
        // Reading has nothing to read as long as all is well.
        match self.socket.try_read(&mut [0]) {
            Err(err) => err.kind() != io::ErrorKind::WouldBlock,
            Ok(_) => true,
        }
    }

    /// Where this connection leads, as it was asked for.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What the peer said when it was asked for its versions.
    pub fn versions(&self) -> &ApiVersionsResponse {
        &self.versions
    }

    /// The newest version of `R`, up to `newest`, that both sides know.
    pub fn version<R: Request>(&self, newest: i16) -> Result<i16, Error> {
        let served = served(&self.versions, R::KEY);
        let version = newest
            .min(R::VERSIONS.max)
            .min(served.map_or(-1, |(_, max)| max));
        let oldest = R::VERSIONS.min.max(served.map_or(i16::MAX, |(min, _)| min));
        if version < oldest {
            return Err(Error::Unserved {
                address: self.address.clone(),
                request: key::<R>(),
                served,
            });
        }
        Ok(version)
    }

    /// Sends a request in `version` and waits for its response, no longer than `patience`.
    ///
    /// After an error the connection is of no more use: an answer may still be on its way.
    pub async fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        patience: Duration,
    ) -> Result<R::Response, Error> {
        self.send(version, request).await?;
        let body = self.receive::<R>(version, patience).await?;
        self.decode(body, key::<R>(), |body| R::Response::decode(body, version))
    }

    /// Sends a request that has no response: a Produce with `acks=0`.
    pub async fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<(), Error> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(self.client_id.clone()));
        let unsendable = |reason: String| Error::Unsendable {
            request: key::<R>(),
            reason,
        };
        let mut frame = BytesMut::new();
        frame.put_u32(0);
        header
            .encode(&mut frame, R::header_version(version))
            .and_then(|()| request.encode(&mut frame, version))
            .map_err(|err| unsendable(err.to_string()))?;
        let size = i32::try_from(frame.len() - 4)
            .map_err(|_| unsendable("it is larger than 2 GiB".to_owned()))?;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        self.socket
            .write_all(&frame)
            .await
            .map_err(|err| self.broken(err))
    }

    /// The body of the response to the request sent last.
    async fn receive<R: Request>(
        &mut self,
        version: i16,
        patience: Duration,
    ) -> Result<Bytes, Error> {
        let mut frame = match tokio::time::timeout(patience, self.frame(key::<R>())).await {
            Ok(frame) => frame?,
            Err(_) => return Err(silent(&self.address, patience)),
        };
        let header_version = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut frame, header_version)
            .map_err(|err| self.not_kafka(err.to_string()))?;
        if header.correlation_id != self.correlation_id {
            return Err(self.not_kafka(format!(
                "request {} was answered as number {}",
                self.correlation_id, header.correlation_id
            )));
        }
        Ok(frame)
    }

    async fn frame(&mut self, request: ApiKey) -> Result<Bytes, Error> {
        loop {
            let next = frame::next(&mut self.inbox, RESPONSE_MAX)
                .map_err(|err: TooLarge| self.not_kafka(err.to_string()))?;
            if let Some(frame) = next {
                return Ok(frame);
            }
            self.inbox.reserve(READ_SIZE);
            match self.socket.read_buf(&mut self.inbox).await {
                Ok(0) => {
                    return Err(Error::Closed {
                        address: self.address.clone(),
                        request,
                    });
                }
                Ok(_) => (),
                Err(err) => return Err(self.broken(err)),
            }
        }
    }

    fn decode<T, E: fmt::Display>(
        &self,
        mut body: Bytes,
        request: ApiKey,
        decode: impl FnOnce(&mut Bytes) -> Result<T, E>,
    ) -> Result<T, Error> {
        decode(&mut body).map_err(|err| self.not_kafka(format!("{request:?} response: {err}")))
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Io {
            address: self.address.clone(),
            source,
        }
    }

    fn not_kafka(&self, reason: String) -> Error {
        Error::NotKafka {
            address: self.address.clone(),
            reason,
        }
    }
}

fn key<R: Request>() -> ApiKey {
    // The codec's requests have the codec's keys.
    ApiKey::try_from(R::KEY).unwrap_or(ApiKey::ApiVersions)
}

fn served(versions: &ApiVersionsResponse, key: i16) -> Option<(i16, i16)> {
    let mut served = versions.api_keys.iter();
    served
        .find(|served| served.api_key == key)
        .map(|served| (served.min_version, served.max_version))
}

fn silent(address: &str, waited: Duration) -> Error {
    Error::Silent {
        address: address.to_owned(),
        waited,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, reason } => {
                write!(
                    f,
                    "{address} is not an address that can be connected to: {reason}"
                )
            }
            Self::Connect { address, .. } => write!(f, "cannot connect to {address}"),
            Self::Silent { address, waited } => {
                write!(
                    f,
                    "no answer from {address} within {} ms",
                    waited.as_millis()
                )
            }
            Self::Closed { address, request } => {
                write!(
                    f,
                    "{address} closed the connection instead of answering {request:?}"
                )
            }
            Self::Io { address, .. } => write!(f, "the connection to {address} broke"),
            Self::NotKafka { address, reason } => {
                write!(
                    f,
                    "what {address} answers is not Kafka's protocol: {reason}"
                )
            }
            Self::Unserved {
                address,
                request,
                served: None,
            } => write!(f, "the broker at {address} does not serve {request:?}"),
            Self::Unserved {
                address,
                request,
                served: Some((min, max)),
            } => write!(
                f,
                "the broker at {address} serves {request:?} in versions {min} to {max}, none of which is known here"
            ),
            Self::Unsendable { request, reason } => write!(f, "cannot send {request:?}: {reason}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect { source, .. } | Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        drop(listener);
        let refused = Peer::connect(&address, "test", PATIENCE).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("cannot connect to {address}"));
    }

    #[tokio::test]
    async fn an_address_without_a_port_is_none() {
        let refused = Peer::connect("localhost", "test", PATIENCE)
            .await
            .unwrap_err();
        assert!(matches!(refused, Error::Address { .. }), "{refused}");
    }

    #[tokio::test]
    async fn an_answer_that_is_not_kafkas_is_told_from_silence() {
        let said = error_after(b"HTTP/1.1 400 Bad Request\r\n\r\n", PATIENCE).await;
        assert!(matches!(said, Error::NotKafka { .. }), "{said}");
        let said = error_after(b"\0\0\0\x04\0\0\0\x09", PATIENCE).await;
        assert!(said.to_string().contains("answered as number 9"), "{said}");
        let said = error_after(b"", PATIENCE).await;
        assert!(matches!(said, Error::Closed { .. }), "{said}");
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let short = Duration::from_millis(20);
        let silent = Peer::connect(&address, "test", short).await.unwrap_err();
        assert!(matches!(silent, Error::Silent { .. }), "{silent}");
    }

    #[tokio::test]
    async fn a_broker_is_asked_for_its_versions_in_the_newest_that_it_understands() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        // (what it understands, the version it is asked in next)
        for (understood, asked) in [(Some(3), 3), (Some(2), 2), (Some(9), 3), (None, 0)] {
            let server = async {
                let (mut socket, _) = listener.accept().await.expect("a client");
                assert_eq!(answer(&mut socket, 0, 35, understood).await, 4);
                assert_eq!(answer(&mut socket, asked, 0, Some(3)).await, asked);
            };
            let (peer, ()) = tokio::join!(Peer::connect(&address, "test", PATIENCE), server);
            let peer = peer.expect("it is connected");
            assert_eq!(
                served(peer.versions(), ApiVersionsRequest::KEY),
                Some((0, 3))
            );
        }
    }

    /// Answers one request in this version, and tells the version that the request had.
    async fn answer(
        socket: &mut TcpStream,
        version: i16,
        code: i16,
        understood: Option<i16>,
    ) -> i16 {
        let size = socket.read_u32().await.expect("a size");
        let mut request = vec![0; size as usize];
        socket.read_exact(&mut request).await.expect("a request");
        let row = |max| {
            ApiVersion::default()
                .with_api_key(ApiVersionsRequest::KEY)
                .with_max_version(max)
        };
        let response = ApiVersionsResponse::default()
            .with_error_code(code)
            .with_api_keys(understood.into_iter().map(row).collect());
        let mut frame = BytesMut::new();
        frame.put_slice(&request[4..8]);
        response.encode(&mut frame, version).expect("it encodes");
        let size = u32::try_from(frame.len()).expect("a small answer");
        socket.write_u32(size).await.expect("the client reads");
        socket.write_all(&frame).await.expect("the client reads");
        i16::from_be_bytes([request[2], request[3]])
    }

    /// What a client makes of a server that reads its first request, says `answer` and leaves.
    async fn error_after(answer: &'static [u8], patience: Duration) -> Error {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let server = async {
            let (mut socket, _) = listener.accept().await.expect("a client");
            let size = socket.read_u32().await.expect("a size");
            let mut request = vec![0; size as usize];
            socket.read_exact(&mut request).await.expect("a request");
            socket.write_all(answer).await.expect("the client reads");
        };
        let (connected, ()) = tokio::join!(Peer::connect(&address, "test", patience), server);
        connected.unwrap_err()
    }
}
