//! What groups are asked, request by request, where a client library would need a process for every member.
//!
//! Versions before the flexible ones: every field stands where it stands, and both brokers serve them.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::{Result, broker::Broker, probe};

const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(2);

const OFFSET_COMMIT: (i16, i16) = (8, 5);
const OFFSET_FETCH: (i16, i16) = (9, 5);
const FIND_COORDINATOR: (i16, i16) = (10, 1);
const JOIN_GROUP: (i16, i16) = (11, 3);
const HEARTBEAT: (i16, i16) = (12, 2);
const SYNC_GROUP: (i16, i16) = (14, 2);

/// The coordinator is not there yet, is being loaded, or is elsewhere.
const NOT_YET: [i16; 3] = [14, 15, 16];

/// A connection, one request at a time.
pub(crate) struct Wire(TcpStream);

/// A member as its group knows it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) group: String,
    pub(crate) id: String,
    pub(crate) generation: i32,
}

impl Wire {
    pub(crate) fn connect(broker: &Broker) -> Result<Wire> {
        let socket = probe::connect(broker.port())?;
        socket.set_nodelay(true)?;
        Ok(Wire(socket))
    }

    /// Waits until the group has a coordinator that answers.
    pub(crate) fn find_coordinator(&mut self, group: &str) -> Result<()> {
        patiently(|| {
            let mut body = Body::default();
            body.text(group)?.byte(0);
            let mut answer = self.ask(FIND_COORDINATOR, &body)?;
            answer.int32()?;
            answer.int16()
        })?;
        self.wait_for_offsets(group)
    }

    /// Waits until the group's offsets can be read.
    pub(crate) fn wait_for_offsets(&mut self, group: &str) -> Result<()> {
        patiently(|| {
            let mut body = Body::default();
            body.text(group)?.int32(0);
            let mut answer = self.ask(OFFSET_FETCH, &body)?;
            answer.int32()?;
            answer.int32()?;
            answer.int16()
        })
    }

    /// Commits the same offset for the first partitions of a topic, as nobody in particular.
    pub(crate) fn commit(
        &mut self,
        group: &str,
        topic: &str,
        partitions: i32,
        offset: i64,
    ) -> Result<()> {
        let nobody = Member {
            group: group.to_owned(),
            id: String::new(),
            generation: -1,
        };
        self.commit_as(&nobody, topic, partitions, offset)
    }

    pub(crate) fn commit_as(
        &mut self,
        member: &Member,
        topic: &str,
        partitions: i32,
        offset: i64,
    ) -> Result<()> {
        let mut body = Body::default();
        body.text(&member.group)?
            .int32(member.generation)
            .text(&member.id)?;
        body.int32(1).text(topic)?.int32(partitions);
        for partition in 0..partitions {
            body.int32(partition).int64(offset).text("")?;
        }
        let mut answer = self.ask(OFFSET_COMMIT, &body)?;
        answer.int32()?;
        answer.int32()?;
        answer.text()?;
        for _ in 0..answer.int32()? {
            answer.int32()?;
            answer.succeeds("OffsetCommit")?;
        }
        Ok(())
    }

    /// Joins a group as its only member and gives itself an assignment.
    pub(crate) fn join(&mut self, group: &str, topic: &str) -> Result<Member> {
        let mut subscription = Body::default();
        subscription.int16(0).int32(1).text(topic)?.int32(-1);
        let mut body = Body::default();
        // The longest session that both allow: nobody sends heartbeats.
        body.text(group)?.int32(1_800_000).int32(1_800_000);
        body.text("")?.text("consumer")?;
        body.int32(1).text("range")?.bytes(&subscription.0)?;
        let mut answer = self.ask(JOIN_GROUP, &body)?;
        answer.int32()?;
        answer.succeeds("JoinGroup")?;
        let generation = answer.int32()?;
        answer.text()?;
        answer.text()?;
        let id = answer.text()?;

        let mut assignment = Body::default();
        assignment.int16(0).int32(1).text(topic)?;
        assignment.int32(1).int32(0).int32(-1);
        let mut body = Body::default();
        body.text(group)?.int32(generation).text(&id)?;
        body.int32(1).text(&id)?.bytes(&assignment.0)?;
        let mut answer = self.ask(SYNC_GROUP, &body)?;
        answer.int32()?;
        answer.succeeds("SyncGroup")?;
        Ok(Member {
            group: group.to_owned(),
            id,
            generation,
        })
    }

    /// Waits until the member's group answers it, and takes it for a member.
    pub(crate) fn wait_for_member(&mut self, member: &Member) -> Result<()> {
        patiently(|| {
            let mut body = Body::default();
            body.text(&member.group)?
                .int32(member.generation)
                .text(&member.id)?;
            let mut answer = self.ask(HEARTBEAT, &body)?;
            answer.int32()?;
            answer.int16()
        })
    }

    fn ask(&mut self, (key, version): (i16, i16), body: &Body) -> Result<Answer> {
        let mut request = Body::default();
        request.int16(key).int16(version).int32(0).text("bench")?;
        request.0.extend_from_slice(&body.0);
        let size = u32::try_from(request.0.len())?;
        let frame = [&size.to_be_bytes()[..], &request.0].concat();
        self.0.write_all(&frame)?;
        let mut size = [0; 4];
        self.0.read_exact(&mut size)?;
        let mut bytes = vec![0; usize::try_from(u32::from_be_bytes(size))?];
        self.0.read_exact(&mut bytes)?;
        let mut answer = Answer { bytes, at: 0 };
        answer.int32()?;
        Ok(answer)
    }
}

/// Asks again while the answer is that the coordinator is not there.
fn patiently(mut ask: impl FnMut() -> Result<i16>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask()? {
            0 => return Ok(()),
            code if NOT_YET.contains(&code) && Instant::now() < deadline => thread::sleep(PAUSE),
            code => return Err(format!("a coordinator answers with error {code}").into()),
        }
    }
}

#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn int16(&mut self, value: i16) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn int32(&mut self, value: i32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn int64(&mut self, value: i64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn text(&mut self, text: &str) -> Result<&mut Self> {
        self.int16(i16::try_from(text.len())?);
        self.0.extend_from_slice(text.as_bytes());
        Ok(self)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<&mut Self> {
        self.int32(i32::try_from(bytes.len())?);
        self.0.extend_from_slice(bytes);
        Ok(self)
    }
}

struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

impl Answer {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.first_chunk().ok_or("an answer ends early")?;
        self.at += N;
        Ok(*taken)
    }

    fn int16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take()?))
    }

    fn int32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    fn text(&mut self) -> Result<String> {
        // -1 is no text.
        let size = usize::try_from(self.int16()?).unwrap_or(0);
        let bytes = self.bytes.get(self.at..self.at + size);
        let text = std::str::from_utf8(bytes.ok_or("an answer ends early")?)?.to_owned();
        self.at += size;
        Ok(text)
    }

    fn succeeds(&mut self, what: &str) -> Result<()> {
        match self.int16()? {
            0 => Ok(()),
            code => Err(format!("{what} is answered with error {code}").into()),
        }
    }
}
