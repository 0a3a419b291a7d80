//! Length-prefixed frames, taken off the front of a buffer that grows as bytes arrive.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

const PREFIX_SIZE: usize = 4;

/// A frame announces more bytes than are allowed (`socket.request.max.bytes`). There is no way to
/// skip it, so the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// A negative length shows as 2 GiB and more.
    pub size: usize,
    pub max: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a frame of {} bytes was announced, {} are allowed",
            self.size, self.max
        )?;
        match self.other_protocol() {
            Some(other) => write!(f, ": it looks like {other}"),
            None => Ok(()),
        }
    }
}

impl TooLarge {
    /// What a client speaks that has mistaken the listener, by the bytes that it announced a size with.
    fn other_protocol(self) -> Option<&'static str> {
        match &u32::try_from(self.size).ok()?.to_be_bytes() {
            // A handshake record of SSL 3.0 or any TLS.
            [0x16, 3, ..] => Some("the hello of TLS, which is not spoken here"),
            b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"OPTI" | b"PATC" | b"CONN" => {
                Some("an HTTP request")
            }
            _ => None,
        }
    }
}

impl std::error::Error for TooLarge {}

/// The next whole frame without its prefix, or `None` until more bytes have come.
///
/// Nothing is reserved for a frame that has only been announced: four bytes from a stranger must
/// not cost us `max` bytes of memory.
pub fn next(buffer: &mut BytesMut, max: usize) -> Result<Option<Bytes>, TooLarge> {
    let Some(size) = announced(buffer) else {
        return Ok(None);
    };
    if size > max {
        return Err(TooLarge { size, max });
    }
    if buffer.len() - PREFIX_SIZE < size {
        return Ok(None);
    }
    buffer.advance(PREFIX_SIZE);
    Ok(Some(buffer.split_to(size).freeze()))
}

/// How many bytes are missing until [`next`] has a frame; 0 if it has one. At least what is missing
/// of the prefix while that is incomplete.
///
/// For sizing the next read, not for reserving: the length is a claim.
pub fn wanted(buffer: &BytesMut) -> usize {
    match announced(buffer) {
        None => PREFIX_SIZE - buffer.len(),
        Some(size) => size.saturating_sub(buffer.len() - PREFIX_SIZE),
    }
}

fn announced(buffer: &BytesMut) -> Option<usize> {
    let prefix = buffer.first_chunk::<PREFIX_SIZE>()?;
    Some(u32::from_be_bytes(*prefix) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_same_wherever_the_stream_is_cut() {
        let stream = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01x";
        for cut in 0..=stream.len() {
            let mut buffer = BytesMut::new();
            let mut frames = Vec::new();
            for piece in [&stream[..cut], &stream[cut..]] {
                buffer.extend_from_slice(piece);
                while let Some(frame) = next(&mut buffer, 3).unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, ["abc", "", "x"], "cut at {cut}");
            assert_eq!(wanted(&buffer), 4);
        }
    }

    #[test]
    fn what_is_missing_is_known_from_the_prefix_on() {
        let mut buffer = BytesMut::from(&b"\0\0"[..]);
        assert_eq!(wanted(&buffer), 2);
        buffer.extend_from_slice(b"\0\x05ab");
        assert_eq!(wanted(&buffer), 3);
        buffer.extend_from_slice(b"cde and more");
        assert_eq!(wanted(&buffer), 0);
    }

    #[test]
    fn what_others_speak_is_named() {
        for (prefix, word) in [
            (*b"\x16\x03\x01\x02", "TLS"),
            (*b"\x16\x03\x03\x00", "TLS"),
            (*b"GET ", "HTTP"),
            (*b"POST", "HTTP"),
        ] {
            let refused = next(&mut BytesMut::from(&prefix[..]), 100 << 20).unwrap_err();
            assert!(refused.to_string().contains(word), "{refused}");
        }
        let refused = next(&mut BytesMut::from(&[0xff; 4][..]), 3).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a frame of 4294967295 bytes was announced, 3 are allowed"
        );
    }

    #[test]
    fn too_long_and_negative_lengths_are_refused_before_anything_is_reserved() {
        for (prefix, size) in [
            ([0, 0, 0, 4], 4),
            ([0xff; 4], u32::MAX as usize),
            (*b"GET ", 0x4745_5420),
        ] {
            let mut buffer = BytesMut::from(&prefix[..]);
            assert_eq!(next(&mut buffer, 3), Err(TooLarge { size, max: 3 }));
            assert!(buffer.capacity() <= 64);
        }
    }
}
