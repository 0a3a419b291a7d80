//! How sockets are set up.

use super::settings::{Reader, Settings};

/// How sockets are set up. Where nobody has said how, as suits the system rather than as Kafka's defaults
/// have it: 100 KiB would keep the system from growing the buffers of distant clients, and 50 connections
/// are too few for a thousand clients that come back after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sockets {
    /// `socket.listen.backlog.size`: connections that may wait to be accepted.
    pub listen_backlog: i32,
    /// `socket.send.buffer.bytes`; `None` leaves it to the system.
    pub send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None` leaves it to the system.
    pub receive_buffer_bytes: Option<usize>,
}

impl Sockets {
    const LISTEN_BACKLOG: i32 = 1024;

    pub(super) fn read(read: &mut Reader<'_>, settings: &Settings) -> Sockets {
        let mut number = |key| {
            let value = read.int(key);
            settings.is_set(key).then_some(value)
        };
        let bytes = |value: Option<i32>| value.and_then(|value| usize::try_from(value).ok());
        Sockets {
            listen_backlog: number("socket.listen.backlog.size").unwrap_or(Self::LISTEN_BACKLOG),
            send_buffer_bytes: bytes(number("socket.send.buffer.bytes")),
            receive_buffer_bytes: bytes(number("socket.receive.buffer.bytes")),
        }
    }
}
