//! The answers of one connection, in the order of their requests.
//!
//! An answer is ready, or it still waits for replicas or for the disk. Nothing overtakes: a ready
//! answer behind a waiting one stays where it is.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use kafka_protocol::messages::ApiKey;

use super::dispatch::Reply;

/// An answer that is not there yet.
pub(super) type Pending = Pin<Box<dyn Future<Output = Reply> + Send>>;

enum Slot {
    Ready(Reply),
    Waiting(Pending),
}

/// What is known of a request while its answer is on the way, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    pub(super) api_key: ApiKey,
    pub(super) version: i16,
    pub(super) size: usize,
    pub(super) received_at: Instant,
    /// Since when the answer waits for something to happen, if it does.
    pub(super) parked_at: Option<Instant>,
    /// How long it has waited.
    pub(super) waited: Duration,
}

#[derive(Default)]
pub(super) struct Outbox {
    slots: VecDeque<(Meter, Slot)>,
}

impl Outbox {
    pub(super) fn push(&mut self, meter: Meter, reply: Reply) {
        self.slots.push_back((meter, Slot::Ready(reply)));
    }

    pub(super) fn push_pending(&mut self, meter: Meter, pending: Pending) {
        self.slots.push_back((meter, Slot::Waiting(pending)));
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes the oldest answer once it is there. Cancel safe: an answer that is not returned stays.
    ///
    /// Never completes while the outbox is empty.
    pub(super) async fn next(&mut self) -> (Meter, Reply) {
        poll_fn(|cx| {
            let reply = match self.slots.front_mut() {
                None => return Poll::Pending,
                Some((_, Slot::Ready(_))) => None,
                Some((meter, Slot::Waiting(pending))) => match pending.as_mut().poll(cx) {
                    Poll::Ready(reply) => {
                        meter.waited = meter.parked_at.map_or(Duration::ZERO, |at| at.elapsed());
                        Some(reply)
                    }
                    Poll::Pending => return Poll::Pending,
                },
            };
            match (reply, self.slots.pop_front()) {
                (Some(reply), Some((meter, _))) | (None, Some((meter, Slot::Ready(reply)))) => {
                    Poll::Ready((meter, reply))
                }
                _ => Poll::Pending,
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn reply(text: &'static str) -> Reply {
        Reply::Bytes(Bytes::from_static(text.as_bytes()))
    }

    fn meter() -> Meter {
        Meter {
            api_key: ApiKey::Produce,
            version: 13,
            size: 0,
            received_at: Instant::now(),
            parked_at: None,
            waited: Duration::ZERO,
        }
    }

    fn text((_, reply): (Meter, Reply)) -> Bytes {
        match reply {
            Reply::Bytes(bytes) => bytes,
            _ => panic!("only bytes were put in"),
        }
    }

    #[tokio::test]
    async fn a_ready_answer_does_not_overtake_a_waiting_one() {
        let (send, receive) = tokio::sync::oneshot::channel();
        let mut outbox = Outbox::default();
        outbox.push_pending(
            meter(),
            Box::pin(async { receive.await.expect("the sender lives") }),
        );
        outbox.push(meter(), reply("second"));
        tokio::select! {
            biased;
            _ = outbox.next() => panic!("the first answer is not there yet"),
            () = std::future::ready(()) => (),
        }
        assert!(send.send(reply("first")).is_ok());
        assert_eq!(text(outbox.next().await), "first");
        assert_eq!(text(outbox.next().await), "second");
        assert!(outbox.is_empty());
    }
}
