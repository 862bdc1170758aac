//! What a session tells of its channels, in numbers.

use super::Session;
use crate::link::Label;

/// Numbers of one channel, or of all with the same label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelStats {
    /// Bytes that its user has written.
    pub written_bytes: u64,
    /// Of these, sent on the present connection or acknowledged.
    pub sent_bytes: u64,
    /// Of these, arrived.
    pub acked_bytes: u64,
    /// Bytes that came.
    pub received_bytes: u64,
    /// Of these, not read yet.
    pub buffered_bytes: u64,
}

impl ChannelStats {
    /// Bytes that wait to be sent.
    pub fn unsent_bytes(&self) -> u64 {
        self.written_bytes - self.sent_bytes
    }
}

impl Session {
    /// The sums over the live channels that `which` picks.
    pub fn stats(&self, which: impl Fn(u32, Label) -> bool) -> ChannelStats {
        let mut sum = ChannelStats::default();
        for (_, entry) in self.channels.iter().filter(|(id, entry)| which(**id, entry.label)) {
            sum.written_bytes += entry.out.written();
            sum.sent_bytes += entry.out.sent();
            sum.acked_bytes += entry.out.acked();
            sum.received_bytes += entry.incoming.received();
            sum.buffered_bytes += entry.incoming.buffered_bytes();
        }
        sum
    }
}
