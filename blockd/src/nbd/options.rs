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
//! the specification wants of such a server, each request that is longer than they may send, or not
//! of whole blocks, gets an error.

use crate::nbd::error::ProtocolError;
use crate::nbd::export::{Export, Negotiated};
use crate::nbd::frame::OptionReplyHeader;
use crate::nbd::option_fields::{Fields, Refused, quoted, selects_base_allocation};
use crate::nbd::wire::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, NBD_INFO_BLOCK_SIZE, NBD_INFO_DESCRIPTION, NBD_INFO_EXPORT,
    NBD_INFO_NAME, NBD_OPT_ABORT, NBD_OPT_EXPORT_NAME, NBD_OPT_EXTENDED_HEADERS, NBD_OPT_GO, NBD_OPT_INFO,
    NBD_OPT_LIST, NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT, NBD_OPT_STARTTLS,
    NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NBD_REP_ERR_TOO_BIG, NBD_REP_ERR_UNKNOWN, NBD_REP_ERR_UNSUP,
    NBD_REP_INFO, NBD_REP_META_CONTEXT, NBD_REP_SERVER,
};

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

/// A length as the wire has it; every reply is far below 4 GiB.
fn be_len(length: usize) -> u32 {
    u32::try_from(length).expect("an option reply is bounded by the strings in it")
}
