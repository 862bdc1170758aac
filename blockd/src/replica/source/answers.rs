//! What the replica says: welcome, acknowledgements with the leaves that differ, seals, failures; and what the source's own
//! disk says when it fails.

use std::time::Duration;

use super::step::{Failures, SealState, StreamError};
use super::{Phase, READ_RETRY, Source};
use crate::extent::Extent;
use crate::replica::wire::{self, FrameType, Header, Refused};
use crate::tracker::Tracker;

impl Source {
    /// Takes in a frame from the replica.
    pub fn handle_frame(
        &mut self,
        tracker: &mut Tracker,
        header: &Header,
        body: &[u8],
    ) -> Result<(), StreamError> {
        if header.epoch != self.epoch {
            return Err(StreamError::Protocol("a frame carries another epoch"));
        }
        match (header.frame_type, self.phase) {
            (FrameType::Welcome, Phase::Greeting { said: true }) => {
                let welcome = wire::Welcome::decode(body)?;
                if welcome.version != wire::VERSION {
                    return Err(StreamError::Protocol("it chose a version that was not offered"));
                }
                if welcome.previous_epoch != self.known_epoch {
                    tracker.distrust();
                    self.distrust_seal();
                }
                if welcome.existing {
                    tracker.agreement().offer_all();
                }
                self.known_epoch = self.epoch;
                self.phase = Phase::Streaming;
                self.last_error = None;
                Ok(())
            }
            (FrameType::Refused, Phase::Greeting { said: true }) => {
                Err(StreamError::Refused(Refused::decode(body)?))
            }
            (FrameType::Failed, _) => {
                let reason = wire::decode_text(body)?;
                self.failures.replica_total += 1;
                self.failures.last.clone_from(&reason);
                Err(StreamError::Failed(reason))
            }
            (FrameType::Ack, Phase::Streaming) => {
                self.handle_ack(tracker, header.seq, &wire::decode_differing(body)?)
            }
            (FrameType::Sealed, Phase::Streaming) => {
                let generation = wire::decode_generation(body)?;
                if self.seal == SealState::Told(generation) {
                    self.seal = SealState::Sealed(generation);
                }
                Ok(())
            }
            _ => Err(StreamError::Protocol("a frame came out of turn")),
        }
    }

    /// The source's own disk could not be read: the rest waits too, so that it is not asked all the time.
    pub(super) fn rest_after_failure(&mut self, reason: String, now: Duration) {
        self.read_retry_at = now + READ_RETRY;
        self.failures.reads_total += 1;
        self.failures.last.clone_from(&reason);
        self.last_error = Some(reason);
    }

    /// Why the last read of the source's disk failed, since the stream was made.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// What has failed so far, at either end.
    pub fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Another copy than the one that was sealed: it has to be sealed itself.
    fn distrust_seal(&mut self) {
        if let SealState::Sealed(generation) = self.seal {
            self.seal = SealState::Sealing(generation);
        }
    }

    fn handle_ack(&mut self, tracker: &mut Tracker, seq: u64, differing: &[u64]) -> Result<(), StreamError> {
        if seq >= self.seq {
            return Err(StreamError::Protocol("it acknowledged what was not sent"));
        }
        while self.sent.front().is_some_and(|sent| sent.seq <= seq) {
            let sent = self.sent.pop_front().expect("just seen");
            self.sent_bytes -= sent.bytes;
            self.counts.acknowledged_bytes_total += sent.bytes;
            for (leaves, offered) in &sent.asked {
                for leaf in leaves.clone() {
                    self.handle_leaf_answer(tracker, sent.seq, leaf, *offered, differing);
                }
            }
        }
        tracker.settle(seq);
        Ok(())
    }

    fn handle_leaf_answer(
        &mut self,
        tracker: &mut Tracker,
        seq: u64,
        leaf: u64,
        offered: bool,
        differing: &[u64],
    ) {
        let same = differing.binary_search(&leaf).is_err();
        if same || !offered {
            self.counts.spared_leaves_total += u64::from(offered);
            return tracker.agreement().handle_answer(leaf, same);
        }
        tracker.agreement().give_back(leaf..leaf + 1);
        tracker.put_back(seq, &Extent::of_leaves(leaf..leaf + 1, self.config.size));
    }
}
