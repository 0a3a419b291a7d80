//! `/metrics` over HTTP: one small answer, for Prometheus.
//!
//! The exporter crate's own listener brings hyper and its buffers; all that is asked here is a GET without a body,
//! answered once per connection, so fifty lines of our own serve it in a few kilobytes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::Metrics;

/// More scrapers at a time than this wait for each other.
const CONNECTIONS_MAX: usize = 8;
const REQUEST_MAX: usize = 8 << 10;
/// For all of one exchange: nobody scrapes this slowly.
const PATIENCE: Duration = Duration::from_secs(10);

/// The address, bound; nothing is served before [`Endpoint::serve`].
pub struct Endpoint(TcpListener);

impl Endpoint {
    pub async fn bind(address: SocketAddr) -> io::Result<Endpoint> {
        TcpListener::bind(address).await.map(Endpoint)
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers scrapes until it is dropped.
    pub async fn serve(self, metrics: Arc<Metrics>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match self.0.accept().await {
                Ok((socket, _)) => {
                    let metrics = Arc::clone(&metrics);
                    tokio::spawn(async move {
                        // A scraper that went away, or never spoke, is its own business.
                        let _ = timeout(PATIENCE, answer(socket, metrics)).await;
                        drop(place);
                    });
                }
                Err(err) => {
                    tracing::warn!(%err, "cannot accept a connection for metrics");
                    // Most likely no descriptor is free; the next attempt would fail as fast.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn answer(mut socket: TcpStream, metrics: Arc<Metrics>) -> io::Result<()> {
    let mut request = Vec::with_capacity(1024);
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if request.len() >= REQUEST_MAX || socket.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let line = request
        .split(|&byte| byte == b'\r')
        .next()
        .unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let path = target
        .split(|&byte| byte == b'?')
        .next()
        .unwrap_or_default();
    let (status, body) = match (method, path) {
        // With ten thousand partitions this takes milliseconds that no other task should wait for.
        (b"GET", b"/metrics") => (
            "200 OK",
            tokio::task::spawn_blocking(move || metrics.render()).await?,
        ),
        (b"GET", _) => ("404 Not Found", "metrics are at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET is served\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body.as_bytes()).await?;
    socket.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_get_of_metrics_is_answered_and_nothing_else_is() {
        check(
            "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 200 OK",
            "process_threads ",
        )
        .await;
        check(
            "GET /metrics?a=b HTTP/1.0\r\n\r\n",
            "HTTP/1.1 200 OK",
            "process_threads ",
        )
        .await;
        check(
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 404 Not Found",
            "at /metrics",
        )
        .await;
        check(
            "POST /metrics HTTP/1.1\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
            "only GET",
        )
        .await;
        check(&"x".repeat(REQUEST_MAX), "", "").await;
    }

    async fn check(request: &str, status: &str, body: &str) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = Endpoint::bind(any).await.expect("a free port");
        let address = endpoint.address().expect("a bound address");
        let server = tokio::spawn(endpoint.serve(Arc::new(Metrics::default())));
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        socket
            .write_all(request.as_bytes())
            .await
            .expect("a request sent");
        let mut answer = String::new();
        // Closing on what was not read resets the connection; nothing was promised to that client.
        let _ = socket.read_to_string(&mut answer).await;
        assert!(answer.starts_with(status), "{answer}");
        assert!(answer.contains(body), "{answer}");
        server.abort();
    }
}
