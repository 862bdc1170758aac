//! The NBD handshake as the server sees it, from the greeting to the first request.
//!
//! ```text
//!                 ┌──────── next option ◄───────┐
//! client flags ─► option header ─► option data ─┤─► Transmission
//!                        │                      └─► Closed
//!                        └─► discard (unknown or too long), refuse ─► next option
//! ```
//!
//! Bytes may come in any pieces: the result is the same. Memory is bounded by one option
//! ([`OPTION_BYTES_KEPT_MAX`]) and by all replies together ([`REPLY_BYTES_MAX`]).
//!
//! Refuses what the protocol has a reply for by that reply, and all else by a [`ProtocolError`],
//! after which the connection has to be closed. Does not read a byte of the transmission phase.

use crate::nbd::frame::{OPTION_BYTES, OptionHeader};
use crate::nbd::options::{Haggle, Next, is_supported};
use crate::nbd::wire::{
    NBD_FLAG_C_FIXED_NEWSTYLE, NBD_FLAG_C_NO_ZEROES, NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_NO_ZEROES,
    NBD_INIT_MAGIC, NBD_OPT_EXPORT_NAME, NBD_OPTS_MAGIC, STRING_BYTES_MAX,
};

pub use crate::nbd::error::ProtocolError;
pub use crate::nbd::export::{Export, ExportError, Negotiated};

/// The most option data that is kept to be understood, in bytes; more is refused by `ERR_TOO_BIG`.
pub const OPTION_BYTES_KEPT_MAX: u32 = 64 * 1024;
/// The most option data that is read only to be refused, in bytes; more is a [`ProtocolError`].
pub const OPTION_BYTES_DISCARDED_MAX: u32 = 1024 * 1024;
/// The most options in one handshake.
pub const OPTIONS_MAX: u32 = 1000;
/// The most bytes of replies to options in one handshake.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What comes next are requests.
    Transmission(Negotiated),
    /// Send what is left to send, and close the connection.
    Closed,
}

/// What the next bytes of the client are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    ClientFlags,
    OptionHeader,
    OptionData(OptionHeader),
    Discard { header: OptionHeader, remaining: u32 },
    Done(Outcome),
}

/// One client's handshake.
#[derive(Debug)]
pub struct Handshake {
    export: Export,
    negotiated: Negotiated,
    stage: Stage,
    /// The beginning of what the stage waits for.
    partial: Vec<u8>,
    /// What has to be sent.
    out: Vec<u8>,
    fixed_newstyle: bool,
    options_count: u32,
    reply_bytes: usize,
}

impl Handshake {
    /// A handshake that offers one export, which must be [valid](Export::validate). The greeting
    /// can be polled at once.
    pub fn new(export: Export) -> Self {
        let mut out = Vec::with_capacity(18);
        out.extend_from_slice(&NBD_INIT_MAGIC.to_be_bytes());
        out.extend_from_slice(&NBD_OPTS_MAGIC.to_be_bytes());
        out.extend_from_slice(&(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES).to_be_bytes());
        Self {
            export,
            negotiated: Negotiated::default(),
            stage: Stage::ClientFlags,
            partial: Vec::new(),
            out,
            fixed_newstyle: false,
            options_count: 0,
            reply_bytes: 0,
        }
    }

    /// Takes bytes of the client and says how many: all of them, unless the handshake ended within
    /// them; then the rest are requests.
    pub fn handle_bytes(&mut self, input: &[u8]) -> Result<usize, ProtocolError> {
        let mut rest = input;
        while self.outcome().is_none() {
            let complete = self.take(&mut rest);
            if !complete {
                break;
            }
            if let Err(error) = self.step() {
                self.stage = Stage::Done(Outcome::Closed);
                return Err(error);
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Everything that has to be sent now, in order.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        if self.out.is_empty() { None } else { Some(std::mem::take(&mut self.out)) }
    }

    /// How it ended, once it has. After a [`ProtocolError`] it is [`Outcome::Closed`].
    pub fn outcome(&self) -> Option<Outcome> {
        match self.stage {
            Stage::Done(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Moves bytes from `rest` to where the stage wants them; true when it has them all.
    fn take(&mut self, rest: &mut &[u8]) -> bool {
        if let Stage::Discard { remaining, .. } = &mut self.stage {
            let skipped = rest.len().min(*remaining as usize);
            *rest = &rest[skipped..];
            *remaining -= skipped as u32;
            return *remaining == 0;
        }
        let wanted = match self.stage {
            Stage::ClientFlags => 4,
            Stage::OptionHeader => OPTION_BYTES,
            Stage::OptionData(header) => header.length as usize,
            Stage::Discard { .. } | Stage::Done(_) => 0,
        };
        let (taken, left) = rest.split_at(rest.len().min(wanted - self.partial.len()));
        self.partial.extend_from_slice(taken);
        *rest = left;
        self.partial.len() == wanted
    }

    /// Acts on a stage that has all its bytes.
    fn step(&mut self) -> Result<(), ProtocolError> {
        let bytes = std::mem::take(&mut self.partial);
        match self.stage {
            Stage::ClientFlags => self.client_flags(&bytes),
            Stage::OptionHeader => self.option_header(&bytes),
            Stage::OptionData(header) => self.option_data(header, &bytes),
            Stage::Discard { header, .. } => {
                let before = self.out.len();
                self.haggle().refuse_unread(header.option, header.length, OPTION_BYTES_KEPT_MAX);
                self.count_replies(before, Next::Haggle)
            }
            Stage::Done(_) => Ok(()),
        }
    }

    fn client_flags(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let flags = u32::from_be_bytes(bytes.try_into().expect("take() waited for four bytes"));
        if flags & !(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES) != 0 {
            return Err(ProtocolError::ClientFlags { flags });
        }
        self.fixed_newstyle = flags & NBD_FLAG_C_FIXED_NEWSTYLE != 0;
        self.negotiated.no_zeroes = flags & NBD_FLAG_C_NO_ZEROES != 0;
        self.stage = Stage::OptionHeader;
        Ok(())
    }

    fn option_header(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let header = OptionHeader::decode(bytes.try_into().expect("take() waited for a header"))?;
        let OptionHeader { option, length } = header;
        self.options_count += 1;
        if self.options_count > OPTIONS_MAX {
            return Err(ProtocolError::TooManyOptions { max: OPTIONS_MAX });
        }
        let nameable = option == NBD_OPT_EXPORT_NAME;
        if !self.fixed_newstyle && !nameable {
            return Err(ProtocolError::NotFixedNewstyle { option });
        }
        let max = if nameable { STRING_BYTES_MAX as u32 } else { OPTION_BYTES_DISCARDED_MAX };
        if length > max {
            return Err(ProtocolError::OptionTooLarge { option, length, max });
        }
        let keep = is_supported(option) && length <= OPTION_BYTES_KEPT_MAX;
        self.stage =
            if keep { Stage::OptionData(header) } else { Stage::Discard { header, remaining: length } };
        Ok(())
    }

    fn option_data(&mut self, header: OptionHeader, data: &[u8]) -> Result<(), ProtocolError> {
        let before = self.out.len();
        let next = self.haggle().answer(header.option, data)?;
        self.count_replies(before, next)
    }

    fn haggle(&mut self) -> Haggle<'_> {
        Haggle { export: &self.export, negotiated: &mut self.negotiated, out: &mut self.out }
    }

    /// Bounds the replies and moves on.
    fn count_replies(&mut self, out_bytes_before: usize, next: Next) -> Result<(), ProtocolError> {
        self.reply_bytes += self.out.len() - out_bytes_before;
        if self.reply_bytes > REPLY_BYTES_MAX {
            return Err(ProtocolError::TooManyReplies { max: REPLY_BYTES_MAX });
        }
        self.stage = match next {
            Next::Haggle => Stage::OptionHeader,
            Next::Transmit => Stage::Done(Outcome::Transmission(self.negotiated)),
            Next::Close => Stage::Done(Outcome::Closed),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
