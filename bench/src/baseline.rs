//! What the machine can do without a broker: bare loops over loopback with the same number of bytes.
//!
//! Each returns the processor time of the thread in the broker's place, per byte moved; the thread at
//! the other end is the client and is not counted.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    sendfile::sendfile64,
    time::TimeValLike,
};

use crate::Result;

/// What a client asks for at a time, and what a full batch of librdkafka is.
const CHUNK: usize = 1 << 20;

/// Processor time and bytes.
pub(crate) struct Cost {
    pub(crate) cpu_time: Duration,
    pub(crate) bytes: u64,
}

impl Cost {
    // Far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn cpu_seconds_per_gb(&self) -> f64 {
        self.cpu_time.as_secs_f64() / self.bytes as f64 * 1e9
    }
}

/// Makes the file the two senders read, `bytes` long and in the page cache.
pub(crate) fn make_file(path: &Path, bytes: u64) -> Result<()> {
    let chunk = vec![b'x'; CHUNK];
    let mut file = File::create(path)?;
    for _ in 0..bytes.div_ceil(CHUNK as u64) {
        file.write_all(&chunk)?;
    }
    Ok(())
}

/// From the page cache into the socket by `sendfile`.
pub(crate) fn send_file(path: &Path) -> Result<Cost> {
    let file = File::open(path)?;
    serve(read_all, move |socket| {
        let mut sent = 0;
        loop {
            match sendfile64(&socket, &file, None, CHUNK)? {
                0 => return Ok(sent),
                size => sent += size as u64,
            }
        }
    })
}

/// The same, but every chunk is asked for once the last has come, as a consumer does it.
pub(crate) fn send_file_when_asked(path: &Path) -> Result<Cost> {
    let file = File::open(path)?;
    let client = |mut socket: TcpStream| -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            socket.write_all(&[0; 100])?;
            match socket.read_exact(&mut buffer) {
                Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                outcome => outcome?,
            }
        }
    };
    serve(client, move |mut socket| {
        let mut sent = 0;
        loop {
            socket.read_exact(&mut [0; 100])?;
            let mut size = 0;
            while size < CHUNK {
                match sendfile64(&socket, &file, None, CHUNK - size)? {
                    0 => return Ok(sent),
                    some => size += some,
                }
            }
            sent += size as u64;
        }
    })
}

/// The same through a buffer of ours.
pub(crate) fn read_and_write(path: &Path) -> Result<Cost> {
    let mut file = File::open(path)?;
    serve(read_all, move |mut socket| {
        let mut buffer = vec![0; CHUNK];
        let mut sent = 0;
        loop {
            let size = file.read(&mut buffer)?;
            if size == 0 {
                return Ok(sent);
            }
            socket.write_all(&buffer[..size])?;
            sent += size as u64;
        }
    })
}

/// The least a produce can cost: receive a batch, check its CRC, write it. In files of 256 MiB, four of
/// which are kept, as the topics of the produce rows keep them.
pub(crate) fn receive_check_write(dir: &Path, bytes: u64) -> Result<Cost> {
    const SEGMENT: u64 = 256 << 20;
    const KEPT: u64 = 4;
    let client = move |mut socket: TcpStream| -> io::Result<()> {
        let chunk = vec![b'x'; CHUNK];
        (0..bytes.div_ceil(CHUNK as u64)).try_for_each(|_| socket.write_all(&chunk))
    };
    let segment = |number: u64| dir.join(number.to_string());
    serve(client, move |mut socket| {
        let mut buffer = vec![0; CHUNK];
        let mut file = File::create(segment(0))?;
        let (mut received, mut checksum) = (0, 0);
        loop {
            match socket.read_exact(&mut buffer) {
                Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => break,
                outcome => outcome?,
            }
            checksum ^= crc32c::crc32c(&buffer);
            file.write_all(&buffer)?;
            received += buffer.len() as u64;
            if received.is_multiple_of(SEGMENT) {
                let number = received / SEGMENT;
                file = File::create(segment(number))?;
                if number >= KEPT {
                    fs::remove_file(segment(number - KEPT))?;
                }
            }
        }
        std::hint::black_box(checksum);
        Ok(received)
    })
}

/// Runs `server` on one end of a loopback connection and `client` on the other.
fn serve(
    client: impl FnOnce(TcpStream) -> io::Result<()> + Send,
    server: impl FnOnce(TcpStream) -> io::Result<u64> + Send,
) -> Result<Cost> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let there = TcpStream::connect(listener.local_addr()?)?;
    let (here, _) = listener.accept()?;
    thread::scope(|scope| {
        let client = scope.spawn(|| client(there));
        let server = scope.spawn(|| -> io::Result<Cost> {
            let bytes = server(here)?;
            Ok(Cost {
                cpu_time: thread_cpu_time()?,
                bytes,
            })
        });
        let cost = server
            .join()
            .map_err(|_| "the server's thread panicked")??;
        client
            .join()
            .map_err(|_| "the client's thread panicked")??;
        Ok(cost)
    })
}

fn thread_cpu_time() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}

fn read_all(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while socket.read(&mut buffer)? > 0 {}
    Ok(())
}
