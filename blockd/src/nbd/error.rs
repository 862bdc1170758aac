//! What a client can do that leaves no answer but to close the connection.
//!
//! Anything that the protocol has an error reply for is not here: see `options` and
//! [`Refusal`](super::request::Refusal).

use thiserror::Error;

/// The client broke the protocol, or asked for more than is sane: disconnect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A client flag that was not offered.
    #[error("client sent unknown handshake flags {flags:#010x}")]
    ClientFlags {
        /// All flags that it sent.
        flags: u32,
    },
    /// An option did not begin with `IHAVEOPT`.
    #[error("client sent {found:#018x} where an option begins with {:#018x}", super::wire::NBD_OPTS_MAGIC)]
    OptionMagic {
        /// What came instead.
        found: u64,
    },
    /// An option that needs fixed newstyle, from a client that did not say it speaks it.
    #[error("client sent option {option} without agreeing to fixed newstyle negotiation")]
    NotFixedNewstyle {
        /// The option.
        option: u32,
    },
    /// An option with more data than is worth reading.
    #[error("client sent option {option} with {length} bytes of data, at most {max} are taken")]
    OptionTooLarge {
        /// The option.
        option: u32,
        /// The length that it announced.
        length: u32,
        /// The limit.
        max: u32,
    },
    /// More options than any negotiation needs.
    #[error("client sent more than {max} options in one handshake")]
    TooManyOptions {
        /// The limit.
        max: u32,
    },
    /// The client asked for more replies in a handshake than any negotiation needs.
    #[error("client asked for more than {max} bytes of option replies in one handshake")]
    TooManyReplies {
        /// The limit.
        max: usize,
    },
    /// `NBD_OPT_EXPORT_NAME` named what is not here; that option has no error reply.
    #[error("client asked for export {name:?} by EXPORT_NAME, which is not served here")]
    UnknownExport {
        /// The name, cleaned and clipped for display.
        name: String,
    },
    /// A request did not begin with its magic.
    #[error("client sent {found:#010x} where a request begins with {:#010x}", super::wire::NBD_REQUEST_MAGIC)]
    RequestMagic {
        /// What came instead.
        found: u32,
    },
    /// A write with more data than is worth reading only to refuse it.
    #[error("client sent a write of {length} bytes at offset {offset}, at most {max} are taken")]
    PayloadTooLarge {
        /// The length that it announced.
        length: u32,
        /// Where it wanted to write.
        offset: u64,
        /// The limit.
        max: u32,
    },
}
