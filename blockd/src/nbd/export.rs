//! What is served, and what a client and this server agreed on about it.
//!
//! An [`Export`] is checked once, before the first client: what it promises in the handshake is
//! what [`Session::parse`](super::request::Session::parse) enforces later.

use thiserror::Error;

use crate::nbd::wire::{
    NBD_FLAG_CAN_MULTI_CONN, NBD_FLAG_HAS_FLAGS, NBD_FLAG_READ_ONLY, NBD_FLAG_ROTATIONAL,
    NBD_FLAG_SEND_CACHE, NBD_FLAG_SEND_DF, NBD_FLAG_SEND_FLUSH, NBD_FLAG_SEND_FUA, NBD_FLAG_SEND_TRIM,
    NBD_FLAG_SEND_WRITE_ZEROES, STRING_BYTES_MAX,
};

/// The largest write that is read off the socket, be it only to refuse it; also the largest
/// maximum block size that may be advertised. In bytes.
pub const PAYLOAD_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// The longest READ and WRITE that is served, whatever a client was told, in bytes: one that never asked for the
/// block sizes may send that much (NBD specification, "Block size constraints").
pub const REQUEST_BYTES_MAX: u32 = 32 * 1024 * 1024;

/// One disk as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name. A client that asks for the empty name, the protocol's "default export", gets it too.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
    /// In bytes.
    pub size: u64,
    /// Refuse whatever would change the disk.
    pub read_only: bool,
    /// Offer TRIM.
    pub can_trim: bool,
    /// Tell the client that seeks are costly.
    pub rotational: bool,
    /// Offsets and lengths must be multiples of this many bytes.
    pub block_size_min: u32,
    /// What the client should use, in bytes.
    pub block_size_preferred: u32,
    /// The longest READ and WRITE that clients are told of, in bytes. Longer ones go through the disk in pieces of it,
    /// up to [`Export::request_bytes_max`].
    pub block_size_max: u32,
}

/// Why an [`Export`] cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExportError {
    /// The protocol limits strings.
    #[error("the export's {what} has {length} bytes; the protocol allows {STRING_BYTES_MAX}, and no NUL")]
    BadString {
        /// "name" or "description".
        what: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// The protocol wants a power of two up to 64 KiB that divides the size.
    #[error(
        "the minimum block size {min} is not a power of two from 1 to 65536 that divides the disk's {size} bytes"
    )]
    BadMinimum {
        /// The minimum block size.
        min: u32,
        /// The disk's size.
        size: u64,
    },
    /// The protocol wants a power of two.
    #[error(
        "the preferred block size {preferred} is not a power of two of at least 512 and the minimum {min}"
    )]
    BadPreferred {
        /// The preferred block size.
        preferred: u32,
        /// The minimum block size.
        min: u32,
    },
    /// Must be reachable in whole blocks, and bounded.
    #[error(
        "the maximum block size {max} is not a multiple of the minimum {min} \
         between the preferred {preferred} and {PAYLOAD_BYTES_MAX}"
    )]
    BadMaximum {
        /// The maximum block size.
        max: u32,
        /// The minimum block size.
        min: u32,
        /// The preferred block size.
        preferred: u32,
    },
}

impl Export {
    /// A writable export of `size` bytes that takes any alignment and has clients send up to 1 MiB a request.
    pub fn new(name: impl Into<String>, size: u64) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            size,
            read_only: false,
            can_trim: true,
            rotational: false,
            block_size_min: 1,
            block_size_preferred: 4096,
            block_size_max: 1024 * 1024,
        }
    }

    /// Checks what the specification demands of names and block sizes.
    pub fn validate(&self) -> Result<(), ExportError> {
        for (what, text) in [("name", &self.name), ("description", &self.description)] {
            if text.len() > STRING_BYTES_MAX || text.contains('\0') {
                return Err(ExportError::BadString { what, length: text.len() });
            }
        }
        let (min, preferred, max) = (self.block_size_min, self.block_size_preferred, self.block_size_max);
        if !min.is_power_of_two() || min > 65536 || !self.size.is_multiple_of(u64::from(min)) {
            return Err(ExportError::BadMinimum { min, size: self.size });
        }
        if !preferred.is_power_of_two() || preferred < 512 || preferred < min {
            return Err(ExportError::BadPreferred { preferred, min });
        }
        if !max.is_multiple_of(min) || max < preferred || max > PAYLOAD_BYTES_MAX {
            return Err(ExportError::BadMaximum { max, min, preferred });
        }
        Ok(())
    }

    /// The longest READ and WRITE that is served, in bytes.
    pub fn request_bytes_max(&self) -> u32 {
        self.block_size_max.max(REQUEST_BYTES_MAX)
    }

    /// True if a client that asks for `name` means this export.
    pub fn answers_to(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.name.as_bytes()
    }

    /// What this export offers in transmission, `NBD_FLAG_*`.
    pub fn transmission_flags(&self, structured_replies: bool) -> u16 {
        let offered = NBD_FLAG_HAS_FLAGS
            | NBD_FLAG_SEND_FLUSH
            | NBD_FLAG_SEND_FUA
            | NBD_FLAG_SEND_CACHE
            | NBD_FLAG_CAN_MULTI_CONN;
        let when = |condition: bool, flags: u16| if condition { flags } else { 0 };
        offered
            | when(self.read_only, NBD_FLAG_READ_ONLY)
            | when(!self.read_only, NBD_FLAG_SEND_WRITE_ZEROES)
            | when(!self.read_only && self.can_trim, NBD_FLAG_SEND_TRIM)
            | when(self.rotational, NBD_FLAG_ROTATIONAL)
            | when(structured_replies, NBD_FLAG_SEND_DF)
    }
}

/// What a handshake agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    /// READ and BLOCK_STATUS are answered in chunks.
    pub structured_replies: bool,
    /// The client selected `base:allocation` and may send BLOCK_STATUS.
    pub base_allocation: bool,
    /// The client wants no padding after EXPORT_NAME.
    pub no_zeroes: bool,
}

#[cfg(test)]
mod tests {
    use super::{Export, ExportError};

    #[test]
    fn block_sizes_that_the_specification_forbids_are_refused() {
        let good = Export::new("disk", 1 << 20);
        assert_eq!(good.validate(), Ok(()));
        let min = |block_size_min| Export { block_size_min, ..good.clone() }.validate();
        assert!(matches!(min(0), Err(ExportError::BadMinimum { .. })));
        assert!(matches!(min(3), Err(ExportError::BadMinimum { .. })));
        assert!(matches!(min(1 << 17), Err(ExportError::BadMinimum { .. })));
        assert!(matches!(min(8192), Err(ExportError::BadPreferred { .. })));
        let odd_size = Export { size: 1000, block_size_min: 512, ..good.clone() };
        assert!(matches!(odd_size.validate(), Err(ExportError::BadMinimum { .. })));
        let max = |block_size_max| Export { block_size_min: 512, block_size_max, ..good.clone() }.validate();
        assert!(matches!(max(u32::MAX), Err(ExportError::BadMaximum { .. })));
        assert!(matches!(max(4096 + 1), Err(ExportError::BadMaximum { .. })));
        assert!(matches!(max(2048), Err(ExportError::BadMaximum { .. })));
        let long = Export::new("x".repeat(4097), 0);
        assert!(matches!(long.validate(), Err(ExportError::BadString { what: "name", .. })));
    }

    #[test]
    fn a_read_only_export_offers_nothing_that_writes() {
        let mut export = Export::new("disk", 4096);
        assert_eq!(export.transmission_flags(true), 0b101_1110_1101);
        assert_eq!(export.transmission_flags(false), 0b101_0110_1101);
        export.read_only = true;
        assert_eq!(export.transmission_flags(true), 0b101_1000_1111);
    }
}
