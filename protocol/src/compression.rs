//! The four codecs, in the containers Kafka's clients expect, with a limit on what may come out.
//!
//! - gzip: members may follow one another, as `GZIPInputStream` reads them.
//! - snappy: the xerial framing of the Java client is written; a bare block, which some clients
//!   send, is read too.
//! - lz4: the frame format with independent blocks of 64 KiB and no checksums. The Java client
//!   cannot read dependent blocks, so they are refused when a client sends them.
//! - zstd: any frame with a window of up to 128 MiB (what level 22 may ask for).
//!
//! A few bytes can decompress to gigabytes. [`decompress`] gives up at its limit, and [`Reader`]
//! produces as much as is asked for, with a fixed amount of memory of its own (zstd: its window).

use std::{
    fmt,
    io::{self, Read, Write},
};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

/// How a batch's records are compressed; the number is the codec's id in the batch's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Compression {
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    pub fn id(self) -> i16 {
        self as i16
    }

    pub fn from_id(id: i16) -> Option<Compression> {
        Compression::ALL.into_iter().find(|codec| codec.id() == id)
    }

    /// Kafka's name for it, as in `compression.type` (which says `uncompressed` for `none`).
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why nothing came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecompressError {
    /// More than `limit` bytes would come out.
    TooLarge { limit: usize },
    /// The bytes are not what the codec writes, or end early.
    Malformed,
}

/// Everything `bytes` decompress to, if that is at most `limit` bytes.
pub fn decompress(
    codec: Compression,
    bytes: &[u8],
    limit: usize,
) -> Result<Bytes, DecompressError> {
    let mut reader = Reader::new(codec, bytes).map_err(|_| DecompressError::Malformed)?;
    let mut out = Vec::with_capacity(bytes.len().saturating_mul(2).min(limit));
    let past_limit = (limit as u64).saturating_add(1);
    reader
        .by_ref()
        .take(past_limit)
        .read_to_end(&mut out)
        .map_err(|_| DecompressError::Malformed)?;
    if out.len() > limit {
        return Err(DecompressError::TooLarge { limit });
    }
    Ok(out.into())
}

/// `bytes` compressed at `level`, or at Kafka's default for the codec.
///
/// Levels: gzip 1 to 9 (default 6), lz4 1 to 17 (default 9), zstd up to 22 (default 3); others are
/// taken as the nearest, and -1 is gzip's default. Snappy has none.
pub fn compress(codec: Compression, level: Option<i32>, bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    let mut bytes = bytes;
    // Invariant: these writers write to memory, which does not fail, and get valid parameters.
    encode(codec, level, &mut bytes, &mut compressed).expect("compressing to memory does not fail");
    compressed
}

/// Writes what `bytes` decompress to, compressed anew. However much that is, only a part of it is in memory at a time; it
/// takes its time.
///
/// Fails where `bytes` are not what their codec writes, or where `out` does.
pub fn transcode(
    from: Compression,
    bytes: &[u8],
    to: Compression,
    level: Option<i32>,
    out: &mut impl Write,
) -> io::Result<()> {
    encode(to, level, &mut Reader::new(from, bytes)?, out)
}

fn encode(
    codec: Compression,
    level: Option<i32>,
    bytes: &mut impl Read,
    out: &mut impl Write,
) -> io::Result<()> {
    match codec {
        Compression::None => io::copy(bytes, out).map(drop),
        Compression::Gzip => {
            let level = match level.unwrap_or(-1) {
                -1 => flate2::Compression::default(),
                level => flate2::Compression::new(level.clamp(1, 9).unsigned_abs()),
            };
            let mut encoder = flate2::write::GzEncoder::new(out, level);
            io::copy(bytes, &mut encoder)?;
            encoder.finish().map(drop)
        }
        Compression::Snappy => snappy::compress(bytes, out),
        Compression::Lz4 => {
            // Kafka's default level, 9, means lz4-java's *fast* compressor; any other its high compressor.
            // In liblz4's numbering 0 is fast, and high compression goes from 3 to 12.
            let level = match level.unwrap_or(9) {
                9 => 0,
                level => level.clamp(3, 12).unsigned_abs(),
            };
            let mut encoder = lz4::EncoderBuilder::new()
                .block_size(lz4::BlockSize::Max64KB)
                .block_mode(lz4::BlockMode::Independent)
                .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
                .checksum(lz4::ContentChecksum::NoChecksum)
                .level(level)
                .build(out)?;
            io::copy(bytes, &mut encoder)?;
            encoder.finish().1
        }
        Compression::Zstd => {
            let level = level.unwrap_or(3).clamp(-131_072, 22);
            zstd::stream::copy_encode(bytes, out, level)
        }
    }
}

/// Decompresses as it is read.
pub struct Reader<'a>(Codec<'a>);

enum Codec<'a> {
    None(&'a [u8]),
    Gzip(MultiGzDecoder<&'a [u8]>),
    Snappy(snappy::Reader<'a>),
    Lz4(lz4::Decoder<&'a [u8]>),
    Zstd(zstd::stream::read::Decoder<'static, &'a [u8]>),
}

impl<'a> Reader<'a> {
    pub fn new(codec: Compression, bytes: &'a [u8]) -> io::Result<Reader<'a>> {
        Ok(Reader(match codec {
            Compression::None => Codec::None(bytes),
            Compression::Gzip => Codec::Gzip(MultiGzDecoder::new(bytes)),
            Compression::Snappy => Codec::Snappy(snappy::Reader::new(bytes)),
            Compression::Lz4 => {
                refuse_dependent_blocks(bytes)?;
                Codec::Lz4(lz4::Decoder::new(bytes)?)
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Codec::Zstd(decoder)
            }
        }))
    }
}

/// 128 MiB: zstd's own default for decoders, and what every level of its encoder stays within.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Codec::None(bytes) => bytes.read(out),
            Codec::Gzip(decoder) => decoder.read(out),
            Codec::Snappy(decoder) => decoder.read(out),
            Codec::Lz4(decoder) => decoder.read(out),
            Codec::Zstd(decoder) => decoder.read(out),
        }
    }
}

/// Looks at the frame's flags: magic (4 bytes), then version (2 bits), block independence (1).
fn refuse_dependent_blocks(frame: &[u8]) -> io::Result<()> {
    match frame {
        [0x04, 0x22, 0x4d, 0x18, flags, ..] if flags & 0xe0 == 0x60 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Snappy as the Java client frames it (xerial's `SnappyOutputStream`): a header of 16 bytes, then
/// blocks, each with its compressed size (i32) in front.
mod snappy {
    use std::io::{self, Read, Write};

    const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    const MAGIC_SIZE: usize = 8;
    const BLOCK_SIZE: usize = 32 * 1024;

    /// A copy element of 3 bytes yields at most 64: what a block claims beyond that is not true.
    const RATIO_MAX: usize = 64;

    pub(super) fn compress(bytes: &mut impl Read, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&HEADER)?;
        let mut encoder = snap::raw::Encoder::new();
        let mut plain = Vec::with_capacity(BLOCK_SIZE);
        loop {
            plain.clear();
            bytes
                .by_ref()
                .take(BLOCK_SIZE as u64)
                .read_to_end(&mut plain)?;
            if plain.is_empty() {
                return Ok(());
            }
            // Invariant: a block is far below snappy's limit of 4 GiB, its only error here.
            let block = encoder
                .compress_vec(&plain)
                .expect("a block is not too large for snappy");
            let size = u32::try_from(block.len()).expect("a block is not too large for its prefix");
            out.write_all(&size.to_be_bytes())?;
            out.write_all(&block)?;
        }
    }

    pub(super) struct Reader<'a> {
        /// Compressed blocks to come.
        rest: &'a [u8],
        framed: bool,
        /// The current block, decompressed, and how much of it has been handed out.
        block: Vec<u8>,
        at: usize,
    }

    impl<'a> Reader<'a> {
        pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
            let framed = bytes.len() >= HEADER.len() && bytes[..MAGIC_SIZE] == HEADER[..MAGIC_SIZE];
            let rest = if framed {
                &bytes[HEADER.len()..]
            } else {
                bytes
            };
            Reader {
                rest,
                framed,
                block: Vec::new(),
                at: 0,
            }
        }

        fn next_block(&mut self) -> io::Result<()> {
            let invalid = || io::Error::from(io::ErrorKind::InvalidData);
            let compressed = if self.framed {
                let (size, rest) = self.rest.split_first_chunk::<4>().ok_or_else(invalid)?;
                let size = u32::from_be_bytes(*size) as usize;
                let (block, rest) = rest.split_at_checked(size).ok_or_else(invalid)?;
                self.rest = rest;
                block
            } else {
                std::mem::take(&mut self.rest)
            };
            let size = snap::raw::decompress_len(compressed).map_err(|_| invalid())?;
            if size > compressed.len().saturating_mul(RATIO_MAX) {
                return Err(invalid());
            }
            self.block.resize(size, 0);
            self.at = 0;
            let written = snap::raw::Decoder::new()
                .decompress(compressed, &mut self.block)
                .map_err(|_| invalid())?;
            self.block.truncate(written);
            Ok(())
        }
    }

    impl Read for Reader<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            while self.at == self.block.len() && !self.rest.is_empty() {
                self.next_block()?;
            }
            let count = (&self.block[self.at..]).read(out)?;
            self.at += count;
            Ok(count)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_back_what_it_took() {
        for codec in Compression::ALL {
            for size in [0, 1, 1000, 200_000] {
                let plain = text(size);
                for level in [None, Some(-1), Some(1), Some(5), Some(9), Some(17)] {
                    let compressed = compress(codec, level, &plain);
                    assert_eq!(
                        decompress(codec, &compressed, size).unwrap(),
                        plain,
                        "{codec}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_given_up_at_the_limit() {
        let zeros = vec![0; 50 << 20];
        for codec in Compression::ALL {
            let compressed = compress(codec, None, &zeros);
            let refused = decompress(codec, &compressed, 1 << 20);
            assert_eq!(
                refused,
                Err(DecompressError::TooLarge { limit: 1 << 20 }),
                "{codec}"
            );
        }
    }

    #[test]
    fn garbage_and_truncation_are_errors_or_less_but_never_more() {
        let plain = text(10_000);
        for codec in [
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ] {
            assert_eq!(
                decompress(codec, b"not compressed at all", 1 << 20),
                Err(DecompressError::Malformed)
            );
            let compressed = compress(codec, None, &plain);
            for cut in 0..compressed.len() {
                if let Ok(got) = decompress(codec, &compressed[..cut], 1 << 20) {
                    assert!(plain.starts_with(&got), "{codec} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn a_bare_snappy_block_is_read() {
        let plain = text(10_000);
        let block = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        assert_eq!(
            decompress(Compression::Snappy, &block, 10_000).unwrap(),
            plain
        );
    }

    #[test]
    fn lz4_frames_are_those_the_java_client_reads() {
        // Version 1, independent blocks, no checksums, no size; blocks of 64 KiB.
        let frame = compress(Compression::Lz4, None, &text(1000));
        assert_eq!(frame[..6], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40]);
        assert!(frame.ends_with(&[0; 4]));
    }

    #[test]
    fn dependent_lz4_blocks_are_refused_because_java_cannot_read_them() {
        let mut encoder = lz4::EncoderBuilder::new()
            .block_mode(lz4::BlockMode::Linked)
            .build(Vec::new())
            .unwrap();
        encoder.write_all(&text(1000)).unwrap();
        let frame = encoder.finish().0;
        assert_eq!(
            decompress(Compression::Lz4, &frame, 1 << 20),
            Err(DecompressError::Malformed)
        );
    }

    fn text(size: usize) -> Vec<u8> {
        b"kafka speaks, and something listens; "
            .iter()
            .copied()
            .cycle()
            .take(size)
            .collect()
    }
}
