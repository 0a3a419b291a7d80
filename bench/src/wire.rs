//! What coordinators are asked, request by request, where a client library would need a client for every member
//! of a group and for every transactional id.
//!
//! Versions before the flexible ones where there are any: every field stands where it stands, and both brokers
//! serve them.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use futures_executor::block_on;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Result, broker::Broker, probe};

const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(2);

const FETCH: (i16, i16) = (1, 4);
const LIST_OFFSETS: (i16, i16) = (2, 1);
const OFFSET_COMMIT: (i16, i16) = (8, 5);
const OFFSET_FETCH: (i16, i16) = (9, 5);
const FIND_COORDINATOR: (i16, i16) = (10, 1);
const JOIN_GROUP: (i16, i16) = (11, 4);
const HEARTBEAT: (i16, i16) = (12, 2);
const SYNC_GROUP: (i16, i16) = (14, 2);
const INIT_PRODUCER_ID: (i16, i16) = (22, 1);
const ADD_PARTITIONS_TO_TXN: (i16, i16) = (24, 1);
const END_TXN: (i16, i16) = (26, 1);
/// Flexible from its first version.
const CONSUMER_GROUP_HEARTBEAT: (i16, i16) = (68, 1);

/// The coordinator is not there yet, is being loaded, is elsewhere, or has the last transaction to complete.
const NOT_YET: [i16; 4] = [14, 15, 16, 51];
/// Join again with the id that is given.
const MEMBER_ID_REQUIRED: i16 = 79;
/// The member has missed a rebalance, or one is under way.
const REJOIN: [i16; 2] = [22, 27];

/// A connection, one request at a time. Over the standard library's socket whoever asks blocks until it is answered; over
/// tokio's others of the same thread go on meanwhile.
pub(crate) struct Wire<S = TcpStream>(S);

/// Sends a frame and receives the one that answers it.
pub(crate) trait Exchange {
    async fn exchange(&mut self, frame: &[u8]) -> io::Result<Vec<u8>>;
}

impl Exchange for TcpStream {
    async fn exchange(&mut self, frame: &[u8]) -> io::Result<Vec<u8>> {
        self.write_all(frame)?;
        let mut size = [0; 4];
        self.read_exact(&mut size)?;
        let mut answer = vec![0; u32::from_be_bytes(size) as usize];
        self.read_exact(&mut answer)?;
        Ok(answer)
    }
}

impl Exchange for tokio::net::TcpStream {
    async fn exchange(&mut self, frame: &[u8]) -> io::Result<Vec<u8>> {
        AsyncWriteExt::write_all(self, frame).await?;
        let size = self.read_u32().await?;
        let mut answer = vec![0; size as usize];
        AsyncReadExt::read_exact(self, &mut answer).await?;
        Ok(answer)
    }
}

/// A member as its group knows it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) group: String,
    pub(crate) id: String,
    pub(crate) generation: i32,
}

/// What a member of the consumer protocol has been told.
#[derive(Debug, Default)]
pub(crate) struct ConsumerMember {
    pub(crate) id: String,
    /// 0 joins, -1 leaves.
    pub(crate) epoch: i32,
    pub(crate) topic_id: [u8; 16],
    pub(crate) partitions: Vec<i32>,
}

/// A producer of a transactional id.
#[derive(Debug)]
pub(crate) struct TransactionalProducer {
    transactional_id: String,
    id: i64,
    epoch: i16,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum CoordinatorOf {
    Groups = 0,
    Transactions = 1,
}

impl Wire {
    pub(crate) fn connect(broker: &Broker) -> Result<Wire> {
        let socket = probe::connect(broker.port())?;
        socket.set_nodelay(true)?;
        Ok(Wire(socket))
    }

    /// Waits until the group has a coordinator that answers.
    pub(crate) fn find_coordinator(&mut self, group: &str) -> Result<()> {
        self.find(CoordinatorOf::Groups, group)?;
        self.wait_for_offsets(group)
    }

    /// Waits until it is known who the coordinator is.
    pub(crate) fn find(&mut self, kind: CoordinatorOf, key: &str) -> Result<()> {
        patiently(|| {
            let mut body = Body::default();
            body.text(key)?.byte(kind as u8);
            let mut answer = self.ask(FIND_COORDINATOR, &body)?;
            answer.int32()?;
            answer.int16()
        })
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

    /// Reads from the start of the first partition of a topic, as a member of a new group does: the group has
    /// committed nothing, so the log is asked where it begins. Returns how many bytes of records came.
    pub(crate) fn read_first(&mut self, group: &str, topic: &str) -> Result<usize> {
        const PARTITION: i32 = 0;
        const EARLIEST: i64 = -2;
        const ANYBODY: i32 = -1;
        let mut committed = Body::default();
        committed.text(group)?.int32(1).text(topic)?;
        committed.int32(1).int32(PARTITION);
        self.ask(OFFSET_FETCH, &committed)?;

        let mut start = Body::default();
        start.int32(ANYBODY).int32(1).text(topic)?;
        start.int32(1).int32(PARTITION).int64(EARLIEST);
        let mut answer = self.ask(LIST_OFFSETS, &start)?;
        // One topic with one partition.
        answer.int32()?;
        answer.text()?;
        answer.int32()?;
        answer.int32()?;
        answer.succeeds("ListOffsets")?;
        answer.int64()?;
        let offset = answer.int64()?;

        let mut fetch = Body::default();
        fetch.int32(ANYBODY).int32(500).int32(1).int32(1 << 20);
        fetch.byte(0).int32(1).text(topic)?;
        fetch.int32(1).int32(PARTITION).int64(offset).int32(1 << 20);
        let mut answer = self.ask(FETCH, &fetch)?;
        answer.int32()?;
        answer.int32()?;
        answer.text()?;
        answer.int32()?;
        answer.int32()?;
        answer.succeeds("Fetch")?;
        answer.int64()?;
        answer.int64()?;
        answer.int32()?;
        Ok(answer.bytes()?.len())
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
        let (member, members) = block_on(self.join_group(group, "", topic))?;
        if block_on(self.sync_group(&member, &members, topic))? {
            Ok(member)
        } else {
            Err("a group with one member rebalances".into())
        }
    }

    /// Waits until the member's group answers it, and takes it for a member.
    pub(crate) fn wait_for_member(&mut self, member: &Member) -> Result<()> {
        patiently(|| block_on(self.ask_heartbeat(member))?.int16())
    }

    /// Waits until the coordinator gives the transactional id its producer.
    pub(crate) fn init_producer_id(
        &mut self,
        transactional_id: &str,
    ) -> Result<TransactionalProducer> {
        let mut producer = TransactionalProducer {
            transactional_id: transactional_id.to_owned(),
            id: -1,
            epoch: -1,
        };
        patiently(|| {
            let mut body = Body::default();
            body.text(transactional_id)?.int32(60_000);
            let mut answer = self.ask(INIT_PRODUCER_ID, &body)?;
            answer.int32()?;
            let code = answer.int16()?;
            producer.id = answer.int64()?;
            producer.epoch = answer.int16()?;
            Ok(code)
        })?;
        Ok(producer)
    }

    /// Begins a transaction of one partition and commits it.
    pub(crate) fn commit_transaction(
        &mut self,
        producer: &TransactionalProducer,
        topic: &str,
        partition: i32,
    ) -> Result<()> {
        let mut begin = Body::default();
        begin
            .text(&producer.transactional_id)?
            .int64(producer.id)
            .int16(producer.epoch);
        let mut commit = Body(begin.0.clone());
        begin.int32(1).text(topic)?.int32(1).int32(partition);
        commit.byte(1);
        patiently(|| {
            let mut answer = self.ask(ADD_PARTITIONS_TO_TXN, &begin)?;
            answer.int32()?;
            // One topic with one partition.
            answer.int32()?;
            answer.text()?;
            answer.int32()?;
            answer.int32()?;
            answer.int16()
        })?;
        patiently(|| {
            let mut answer = self.ask(END_TXN, &commit)?;
            answer.int32()?;
            answer.int16()
        })
    }

    fn ask(&mut self, api: (i16, i16), body: &Body) -> Result<Answer> {
        block_on(self.ask_for(api, body))
    }
}

impl Wire<tokio::net::TcpStream> {
    /// For the runtime that the caller is in.
    pub(crate) fn into_waiting(wire: Wire) -> Result<Self> {
        wire.0.set_nonblocking(true)?;
        Ok(Wire(tokio::net::TcpStream::from_std(wire.0)?))
    }
}

impl<S: Exchange> Wire<S> {
    /// Joins, for the first time with an empty id, and waits until the others have. The leader gets to know all
    /// members' ids, everybody else none.
    pub(crate) async fn join_group(
        &mut self,
        group: &str,
        id: &str,
        topic: &str,
    ) -> Result<(Member, Vec<String>)> {
        let mut subscription = Body::default();
        subscription.int16(0).int32(1).text(topic)?.int32(-1);
        let mut answer = self.ask_to_join(group, id, &subscription).await?;
        let mut code = answer.int16()?;
        if code == MEMBER_ID_REQUIRED {
            answer.int32()?;
            answer.text()?;
            answer.text()?;
            let id = answer.text()?;
            answer = self.ask_to_join(group, &id, &subscription).await?;
            code = answer.int16()?;
        }
        if code != 0 {
            return Err(format!("JoinGroup is answered with error {code}").into());
        }
        let generation = answer.int32()?;
        answer.text()?;
        answer.text()?;
        let id = answer.text()?;
        let members = (0..answer.int32()?).map(|_| {
            let member = answer.text()?;
            answer.bytes()?;
            Ok(member)
        });
        let members = members.collect::<Result<_>>()?;
        let group = group.to_owned();
        Ok((
            Member {
                group,
                id,
                generation,
            },
            members,
        ))
    }

    async fn ask_to_join(&mut self, group: &str, id: &str, subscription: &Body) -> Result<Answer> {
        let mut body = Body::default();
        // The longest session that both allow: not everybody sends heartbeats.
        body.text(group)?.int32(1_800_000).int32(1_800_000);
        body.text(id)?.text("consumer")?;
        body.int32(1).text("range")?.bytes(&subscription.0)?;
        let mut answer = self.ask_for(JOIN_GROUP, &body).await?;
        answer.int32()?;
        Ok(answer)
    }

    /// Waits for the assignment, which the leader gives: one partition of the topic to each. False when the group
    /// rebalances again.
    pub(crate) async fn sync_group(
        &mut self,
        member: &Member,
        members: &[String],
        topic: &str,
    ) -> Result<bool> {
        let mut body = Body::default();
        body.text(&member.group)?
            .int32(member.generation)
            .text(&member.id)?;
        body.int32(i32::try_from(members.len())?);
        for (partition, id) in (0..).zip(members) {
            let mut assignment = Body::default();
            assignment.int16(0).int32(1).text(topic)?;
            assignment.int32(1).int32(partition).int32(-1);
            body.text(id)?.bytes(&assignment.0)?;
        }
        let mut answer = self.ask_for(SYNC_GROUP, &body).await?;
        answer.int32()?;
        answer.is_still_member("SyncGroup")
    }

    /// False when the group rebalances.
    pub(crate) async fn heartbeat(&mut self, member: &Member) -> Result<bool> {
        self.ask_heartbeat(member)
            .await?
            .is_still_member("Heartbeat")
    }

    async fn ask_heartbeat(&mut self, member: &Member) -> Result<Answer> {
        let mut body = Body::default();
        body.text(&member.group)?
            .int32(member.generation)
            .text(&member.id)?;
        let mut answer = self.ask_for(HEARTBEAT, &body).await?;
        answer.int32()?;
        Ok(answer)
    }

    /// Says what the member has and learns what it should have, which it has at once. True when that is news.
    pub(crate) async fn consumer_heartbeat(
        &mut self,
        group: &str,
        member: &mut ConsumerMember,
        topic: &str,
        report_partitions: bool,
    ) -> Result<bool> {
        const NULL: u8 = 0;
        let mut body = Body::default();
        body.compact_text(group)?.compact_text(&member.id)?;
        body.int32(member.epoch).byte(NULL).byte(NULL);
        if member.epoch == 0 {
            body.int32(45_000).size(1)?.compact_text(topic)?;
        } else {
            body.int32(-1).byte(NULL);
        }
        body.byte(NULL).byte(NULL);
        if member.epoch == 0 || report_partitions {
            let topics = usize::from(!member.partitions.is_empty());
            body.size(topics)?;
            if topics > 0 {
                body.0.extend_from_slice(&member.topic_id);
                body.size(member.partitions.len())?;
                for &partition in &member.partitions {
                    body.int32(partition);
                }
                body.no_tags();
            }
        } else {
            body.byte(NULL);
        }
        body.no_tags();

        let mut answer = self.ask_for(CONSUMER_GROUP_HEARTBEAT, &body).await?;
        answer.skip_tags()?;
        answer.int32()?;
        answer.succeeds("ConsumerGroupHeartbeat")?;
        answer.compact_text()?;
        answer.compact_text()?;
        member.epoch = answer.int32()?;
        answer.int32()?;
        if answer.take::<1>()? != [1] {
            return Ok(false);
        }
        member.partitions.clear();
        for _ in 0..answer.size()? {
            member.topic_id = answer.take()?;
            for _ in 0..answer.size()? {
                member.partitions.push(answer.int32()?);
            }
            answer.skip_tags()?;
        }
        Ok(true)
    }

    async fn ask_for(&mut self, (key, version): (i16, i16), body: &Body) -> Result<Answer> {
        let mut request = Body::default();
        request.int16(key).int16(version).int32(0).text("bench")?;
        if (key, version) == CONSUMER_GROUP_HEARTBEAT {
            request.no_tags();
        }
        request.0.extend_from_slice(&body.0);
        let size = u32::try_from(request.0.len())?;
        let frame = [&size.to_be_bytes()[..], &request.0].concat();
        let bytes = self.0.exchange(&frame).await?;
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

    /// Of a flexible version's text or array: one more than it is, seven bits a byte, the lowest first.
    fn size(&mut self, size: usize) -> Result<&mut Self> {
        let mut left = u32::try_from(size)? + 1;
        while left > 0x7f {
            self.byte(u8::try_from(left & 0x7f)? | 0x80);
            left >>= 7;
        }
        Ok(self.byte(u8::try_from(left)?))
    }

    fn compact_text(&mut self, text: &str) -> Result<&mut Self> {
        self.size(text.len())?;
        self.0.extend_from_slice(text.as_bytes());
        Ok(self)
    }

    fn no_tags(&mut self) -> &mut Self {
        self.byte(0)
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

    fn int64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take()?))
    }

    fn text(&mut self) -> Result<String> {
        // -1 is no text.
        let size = usize::try_from(self.int16()?).unwrap_or(0);
        Ok(std::str::from_utf8(self.take_slice(size)?)?.to_owned())
    }

    fn bytes(&mut self) -> Result<&[u8]> {
        let size = usize::try_from(self.int32()?)?;
        self.take_slice(size)
    }

    fn take_slice(&mut self, size: usize) -> Result<&[u8]> {
        let taken = self.bytes.get(self.at..self.at + size);
        self.at += size;
        taken.ok_or_else(|| "an answer ends early".into())
    }

    fn varint(&mut self) -> Result<usize> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let [byte] = self.take()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than 32 bits".into())
    }

    /// Null counts for nothing.
    fn size(&mut self) -> Result<usize> {
        Ok(self.varint()?.saturating_sub(1))
    }

    fn compact_text(&mut self) -> Result<()> {
        let size = self.size()?;
        self.take_slice(size).map(drop)
    }

    fn skip_tags(&mut self) -> Result<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.take_slice(size)?;
        }
        Ok(())
    }

    fn is_still_member(&mut self, what: &str) -> Result<bool> {
        match self.int16()? {
            0 => Ok(true),
            code if REJOIN.contains(&code) => Ok(false),
            code => Err(format!("{what} is answered with error {code}").into()),
        }
    }

    fn succeeds(&mut self, what: &str) -> Result<()> {
        match self.int16()? {
            0 => Ok(()),
            code => Err(format!("{what} is answered with error {code}").into()),
        }
    }
}
