//! Reading the data of an option, and saying what is wrong with it.
//!
//! Every length is checked against what was sent before a byte is looked at. Refusals are whole
//! sentences: clients show them to their users.

use crate::nbd::wire::{BASE_ALLOCATION, NBD_REP_ERR_INVALID, NBD_REP_ERR_TOO_BIG, STRING_BYTES_MAX};

/// The most queries in one META_CONTEXT option.
const QUERIES_MAX: u32 = 256;
/// The most bytes of a client's own words that are quoted back to it.
const QUOTED_BYTES_MAX: usize = 256;

/// An error reply: its `NBD_REP_ERR_*` and a sentence for the client's user.
pub(super) struct Refused(pub(super) u32, pub(super) String);

impl Refused {
    /// Malformed, or out of order.
    pub(super) fn invalid(why: impl Into<String>) -> Self {
        Self(NBD_REP_ERR_INVALID, why.into())
    }
}

/// Option data that is still to be read.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], Refused> {
        let Some((head, rest)) = self.0.split_at_checked(length) else {
            let left = self.0.len();
            return Err(Refused::invalid(format!("{what} needs {length} bytes, only {left} were sent")));
        };
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn u16(&mut self, what: &str) -> Result<u16, Refused> {
        let bytes = self.take(2, what)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self, what: &str) -> Result<u32, Refused> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A string with its length before it.
    pub(super) fn string(&mut self, what: &str) -> Result<&'a [u8], Refused> {
        let length = self.u32(what)? as usize;
        if length > STRING_BYTES_MAX {
            return Err(Refused::invalid(format!(
                "{what} of {length} bytes, the protocol allows {STRING_BYTES_MAX}"
            )));
        }
        self.take(length, what)
    }
}

/// Reads the queries of a META_CONTEXT option and says whether they match `base:allocation`. No
/// queries at all list everything, and set nothing; `base:` lists its namespace, and sets nothing.
pub(super) fn selects_base_allocation(fields: &mut Fields, set: bool) -> Result<bool, Refused> {
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

/// Clips and cleans what a client sent, for a message.
pub(super) fn quoted(text: &[u8]) -> String {
    let clipped = &text[..text.len().min(QUOTED_BYTES_MAX)];
    let mut quoted = String::from_utf8_lossy(clipped).replace(char::is_control, "?");
    if clipped.len() < text.len() {
        quoted.push('…');
    }
    quoted
}
