//! A load: what is done how often, and where.

use crate::scratch::Noise;

/// Read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// NBD_CMD_READ.
    Read,
    /// NBD_CMD_WRITE.
    Write,
}

/// One line of the comparison.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Read or write.
    pub kind: Kind,
    /// Bytes of one request.
    pub request_bytes: u32,
    /// Requests in flight.
    pub depth: usize,
    /// Anywhere, or one after the other.
    pub random: bool,
    /// Requests of one run.
    pub requests: usize,
}

impl Load {
    /// 4 KiB anywhere.
    pub fn random(kind: Kind, depth: usize, requests: usize) -> Self {
        Self { kind, request_bytes: 4096, depth, random: true, requests }
    }

    /// Large requests one after the other, four in flight as copying tools do.
    pub fn sequential(kind: Kind, request_bytes: u32, total_bytes: u64) -> Self {
        let requests = (total_bytes / u64::from(request_bytes)) as usize;
        Self { kind, request_bytes, depth: 4, random: false, requests }
    }

    /// How the report calls it.
    pub fn name(&self) -> String {
        let kind = if self.kind == Kind::Read { "read" } else { "write" };
        let order = if self.random { "random" } else { "sequential" };
        let size = if self.request_bytes < 1 << 20 {
            format!("{} KiB", self.request_bytes >> 10)
        } else {
            format!("{} MiB", self.request_bytes >> 20)
        };
        format!("{size} {order} {kind}, depth {}", self.depth)
    }

    /// The offsets of all requests on a disk of `size_bytes`.
    pub fn offsets(&self, size_bytes: u64, seed: u64) -> Vec<u64> {
        let places = size_bytes / u64::from(self.request_bytes);
        let mut noise = Noise::new(seed);
        let place = |index: usize| if self.random { noise.below(places) } else { index as u64 % places };
        (0..self.requests).map(place).map(|place| place * u64::from(self.request_bytes)).collect()
    }
}
