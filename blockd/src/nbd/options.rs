//! The answer to one whole option of the handshake.
//!
//! | option                       | answer                                                         |
//! |------------------------------|----------------------------------------------------------------|
//! | EXPORT_NAME                  | size and flags, or a disconnect: it has no error reply         |
//! | GO, INFO                     | EXPORT, what was asked of NAME, DESCRIPTION, BLOCK_SIZE; ACK   |
//! | LIST                         | the one export; ACK                                            |
//! | STRUCTURED_REPLY             | ACK                                                            |
//! | LIST/SET_META_CONTEXT        | `base:allocation` where asked for; ACK                         |
//! | ABORT                        | ACK, and the end                                               |
//! | STARTTLS, EXTENDED_HEADERS … | ERR_UNSUP                                                      |
//!
//! Clients that never ask for the block sizes are let in (ERR_BLOCK_SIZE_REQD is never sent): as
//! the specification wants of such a server, each request outside the constraints gets an error.

use crate::nbd::error::ProtocolError;
use crate::nbd::export::{Export, Negotiated};
use crate::nbd::frame::OptionReplyHeader;
use crate::nbd::wire::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, NBD_INFO_BLOCK_SIZE, NBD_INFO_DESCRIPTION, NBD_INFO_EXPORT,
    NBD_INFO_NAME, NBD_OPT_ABORT, NBD_OPT_EXPORT_NAME, NBD_OPT_EXTENDED_HEADERS, NBD_OPT_GO, NBD_OPT_INFO,
    NBD_OPT_LIST, NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT, NBD_OPT_STARTTLS,
    NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NBD_REP_ERR_INVALID, NBD_REP_ERR_TOO_BIG, NBD_REP_ERR_UNKNOWN,
    NBD_REP_ERR_UNSUP, NBD_REP_INFO, NBD_REP_META_CONTEXT, NBD_REP_SERVER, STRING_BYTES_MAX,
};

/// The most queries in one META_CONTEXT option.
const QUERIES_MAX: u32 = 256;
/// The most bytes of a client's own words that are quoted back to it.
const QUOTED_BYTES_MAX: usize = 256;
/// Zero bytes after an EXPORT_NAME reply, unless the client asked for none.
const EXPORT_NAME_PADDING: [u8; 124] = [0; 124];

/// Where the handshake goes after an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// On to the next option.
    Haggle,
    /// On to transmission.
    Transmit,
    /// The client wants to leave.
    Close,
}

/// An error reply: its `NBD_REP_ERR_*` and a sentence for the client's user.
struct Refused(u32, String);

impl Refused {
    fn invalid(why: impl Into<String>) -> Self {
        Self(NBD_REP_ERR_INVALID, why.into())
    }
}

/// Answers one option at a time into `out`.
pub(super) struct Haggle<'a> {
    pub(super) export: &'a Export,
    pub(super) negotiated: &'a mut Negotiated,
    pub(super) out: &'a mut Vec<u8>,
}

impl Haggle<'_> {
    /// Answers `option` with the given data.
    pub(super) fn answer(&mut self, option: u32, data: &[u8]) -> Result<Next, ProtocolError> {
        if option == NBD_OPT_EXPORT_NAME {
            return self.export_name(data);
        }
        let answered = match option {
            NBD_OPT_ABORT => Ok(Next::Close),
            NBD_OPT_GO | NBD_OPT_INFO => self.describe(option, data),
            NBD_OPT_LIST => self.list(data),
            NBD_OPT_STRUCTURED_REPLY => self.structured_reply(data),
            NBD_OPT_LIST_META_CONTEXT | NBD_OPT_SET_META_CONTEXT => self.meta_context(option, data),
            _ => Err(unsupported(option)),
        };
        Ok(match answered {
            Ok(next) => {
                self.reply(option, NBD_REP_ACK, &[]);
                next
            }
            Err(refused) => {
                self.refuse(option, &refused);
                Next::Haggle
            }
        })
    }

    /// Refuses an option whose data was too long to be kept.
    pub(super) fn refuse_unread(&mut self, option: u32, length: u32, max: u32) {
        let refused = if is_supported(option) {
            Refused(NBD_REP_ERR_TOO_BIG, format!("{length} bytes of option data, at most {max} are taken"))
        } else {
            unsupported(option)
        };
        if option == NBD_OPT_SET_META_CONTEXT {
            self.negotiated.base_allocation = false;
        }
        self.refuse(option, &refused);
    }

    fn refuse(&mut self, option: u32, Refused(reply, why): &Refused) {
        self.reply(option, *reply, &[why.as_bytes()]);
    }

    /// Appends a reply whose data is the given parts, one after the other.
    fn reply(&mut self, option: u32, reply: u32, parts: &[&[u8]]) {
        let length = be_len(parts.iter().map(|part| part.len()).sum());
        self.out.extend_from_slice(&OptionReplyHeader { option, reply, length }.encode());
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }

    fn export_name(&mut self, name: &[u8]) -> Result<Next, ProtocolError> {
        if !self.export.answers_to(name) {
            return Err(ProtocolError::UnknownExport { name: quoted(name) });
        }
        let flags = self.export.transmission_flags(self.negotiated.structured_replies);
        self.out.extend_from_slice(&self.export.size.to_be_bytes());
        self.out.extend_from_slice(&flags.to_be_bytes());
        if !self.negotiated.no_zeroes {
            self.out.extend_from_slice(&EXPORT_NAME_PADDING);
        }
        Ok(Next::Transmit)
    }

    fn describe(&mut self, option: u32, data: &[u8]) -> Result<Next, Refused> {
        let mut fields = Fields(data);
        let name = fields.string("export name")?;
        let count = fields.u16("number of information requests")?;
        if fields.0.len() != 2 * usize::from(count) {
            return Err(Refused::invalid(format!(
                "{count} information requests announced, {} bytes of them sent",
                fields.0.len()
            )));
        }
        let requests = fields.0;
        let asked = |item: u16| requests.chunks_exact(2).any(|request| request == item.to_be_bytes());
        self.check_name(name)?;

        let flags = self.export.transmission_flags(self.negotiated.structured_replies);
        let size = self.export.size.to_be_bytes();
        self.item(option, NBD_INFO_EXPORT, &[&size, &flags.to_be_bytes()]);
        if asked(NBD_INFO_NAME) {
            self.item(option, NBD_INFO_NAME, &[self.export.name.as_bytes()]);
        }
        if asked(NBD_INFO_DESCRIPTION) && !self.export.description.is_empty() {
            self.item(option, NBD_INFO_DESCRIPTION, &[self.export.description.as_bytes()]);
        }
        if asked(NBD_INFO_BLOCK_SIZE) {
            let Export { block_size_min, block_size_preferred, block_size_max, .. } = self.export;
            let sizes = [block_size_min, block_size_preferred, block_size_max].map(|size| size.to_be_bytes());
            self.item(option, NBD_INFO_BLOCK_SIZE, &[&sizes[0], &sizes[1], &sizes[2]]);
        }
        Ok(if option == NBD_OPT_GO { Next::Transmit } else { Next::Haggle })
    }

    /// Appends an `NBD_REP_INFO` of at most three parts.
    fn item(&mut self, option: u32, item: u16, parts: &[&[u8]]) {
        let item = item.to_be_bytes();
        let mut all: [&[u8]; 4] = [&item, &[], &[], &[]];
        all[1..=parts.len()].copy_from_slice(parts);
        self.reply(option, NBD_REP_INFO, &all);
    }

    fn list(&mut self, data: &[u8]) -> Result<Next, Refused> {
        no_data("LIST", data)?;
        let (name, description) = (self.export.name.as_bytes(), self.export.description.as_bytes());
        let name_len = be_len(name.len()).to_be_bytes();
        self.reply(NBD_OPT_LIST, NBD_REP_SERVER, &[&name_len, name, description]);
        Ok(Next::Haggle)
    }

    fn structured_reply(&mut self, data: &[u8]) -> Result<Next, Refused> {
        no_data("STRUCTURED_REPLY", data)?;
        self.negotiated.structured_replies = true;
        Ok(Next::Haggle)
    }

    fn meta_context(&mut self, option: u32, data: &[u8]) -> Result<Next, Refused> {
        let set = option == NBD_OPT_SET_META_CONTEXT;
        if set {
            // Every SET replaces what was selected before, also one that fails.
            self.negotiated.base_allocation = false;
        }
        if !self.negotiated.structured_replies {
            return Err(Refused::invalid("metadata contexts need STRUCTURED_REPLY first"));
        }
        let mut fields = Fields(data);
        let name = fields.string("export name")?;
        let selected = selects_base_allocation(&mut fields, set)?;
        self.check_name(name)?;
        if selected {
            // The ID means nothing in a list, and is 0 there.
            let id = if set { BASE_ALLOCATION_ID } else { 0 };
            self.reply(option, NBD_REP_META_CONTEXT, &[&id.to_be_bytes(), BASE_ALLOCATION.as_bytes()]);
        }
        if set {
            self.negotiated.base_allocation = selected;
        }
        Ok(Next::Haggle)
    }

    fn check_name(&self, name: &[u8]) -> Result<(), Refused> {
        if self.export.answers_to(name) {
            return Ok(());
        }
        let (asked, served) = (quoted(name), &self.export.name);
        Err(Refused(NBD_REP_ERR_UNKNOWN, format!("no export {asked:?} here, this server has {served:?}")))
    }
}

/// Reads the queries of a META_CONTEXT option and says whether they match `base:allocation`. No
/// queries at all list everything, and set nothing; `base:` lists its namespace, and sets nothing.
fn selects_base_allocation(fields: &mut Fields, set: bool) -> Result<bool, Refused> {
    let count = fields.u32("number of queries")?;
    if count > QUERIES_MAX {
        let why = format!("{count} metadata queries, at most {QUERIES_MAX} are taken");
        return Err(Refused(NBD_REP_ERR_TOO_BIG, why));
    }
    let mut selected = count == 0 && !set;
    for _ in 0..count {
        let query = fields.string("metadata query")?;
        if !query.contains(&b':') {
            return Err(Refused::invalid(format!("metadata query {:?} has no namespace", quoted(query))));
        }
        selected |= query == BASE_ALLOCATION.as_bytes() || (!set && query == b"base:");
    }
    if !fields.0.is_empty() {
        return Err(Refused::invalid(format!("{} bytes left over after the last query", fields.0.len())));
    }
    Ok(selected)
}

/// True for options that can be answered by anything but ERR_UNSUP.
pub(super) fn is_supported(option: u32) -> bool {
    matches!(
        option,
        NBD_OPT_EXPORT_NAME
            | NBD_OPT_ABORT
            | NBD_OPT_LIST
            | NBD_OPT_INFO
            | NBD_OPT_GO
            | NBD_OPT_STRUCTURED_REPLY
            | NBD_OPT_LIST_META_CONTEXT
            | NBD_OPT_SET_META_CONTEXT
    )
}

fn unsupported(option: u32) -> Refused {
    let why = match option {
        NBD_OPT_STARTTLS => "this server does not speak TLS".to_owned(),
        NBD_OPT_EXTENDED_HEADERS => "this server does not use extended headers".to_owned(),
        _ => format!("option {option} is not known to this server"),
    };
    Refused(NBD_REP_ERR_UNSUP, why)
}

fn no_data(option: &str, data: &[u8]) -> Result<(), Refused> {
    if data.is_empty() {
        return Ok(());
    }
    Err(Refused::invalid(format!("{option} takes no data, {} bytes sent", data.len())))
}

/// Clips and cleans what a client sent, for a message.
fn quoted(text: &[u8]) -> String {
    let clipped = &text[..text.len().min(QUOTED_BYTES_MAX)];
    let mut quoted = String::from_utf8_lossy(clipped).replace(char::is_control, "?");
    if clipped.len() < text.len() {
        quoted.push('…');
    }
    quoted
}

/// A length as the wire has it; every reply is far below 4 GiB.
fn be_len(length: usize) -> u32 {
    u32::try_from(length).expect("an option reply is bounded by the strings in it")
}

/// Option data that is still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], Refused> {
        let Some((head, rest)) = self.0.split_at_checked(length) else {
            let left = self.0.len();
            return Err(Refused::invalid(format!("{what} needs {length} bytes, only {left} were sent")));
        };
        self.0 = rest;
        Ok(head)
    }

    fn u16(&mut self, what: &str) -> Result<u16, Refused> {
        let bytes = self.take(2, what)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self, what: &str) -> Result<u32, Refused> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A string with its length before it.
    fn string(&mut self, what: &str) -> Result<&'a [u8], Refused> {
        let length = self.u32(what)? as usize;
        if length > STRING_BYTES_MAX {
            return Err(Refused::invalid(format!(
                "{what} of {length} bytes, the protocol allows {STRING_BYTES_MAX}"
            )));
        }
        self.take(length, what)
    }
}
