//! The smallest client there is: one ApiVersions request on a socket of its own.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// ApiVersions v0, correlation id 1, no client id, after its length.
const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

/// A connection on which the broker has answered once.
pub(crate) fn connect(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    socket.set_read_timeout(Some(Duration::from_secs(120)))?;
    socket.write_all(&REQUEST)?;

    let mut size = [0; 4];
    socket.read_exact(&mut size)?;
    let size = u32::from_be_bytes(size);
    if !(6..=1 << 20).contains(&size) {
        return Err(io::Error::other(format!(
            "an answer of {size} bytes to ApiVersions"
        )));
    }
    let mut answer = Vec::new();
    (&socket).take(size.into()).read_to_end(&mut answer)?;
    match answer.get(..6) {
        Some([0, 0, 0, 1, 0, 0]) => Ok(socket),
        _ => Err(io::Error::other("not an answer to ApiVersions")),
    }
}
