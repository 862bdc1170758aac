//! Why there is no link, in words for both of its sides.

use thiserror::Error;

use super::hello::{RefusalCode, Refused};
use super::session::ChannelError;

/// Why a link was not made, or is over.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LinkError {
    /// The other host does not know this host's key.
    #[error("not paired: {0}")]
    NotPaired(String),
    /// One of the hosts has another key than the other remembers.
    #[error("wrong key: {0}")]
    WrongKey(String),
    /// The two builds have no version of the protocol in common.
    #[error("no common version: {0}")]
    Version(String),
    /// The token of a pairing was not accepted.
    #[error("token refused: {0}")]
    Token(String),
    /// The other host has no such link (any more); it was restarted, or gave up.
    #[error("the link is not known at the other host: {0}")]
    UnknownLink(String),
    /// The other host refused for another reason.
    #[error("refused: {0}")]
    Refused(String),
    /// Nobody answers there, or the way there broke.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// Somebody answers there who does not speak this protocol.
    #[error("not the link protocol: {0}")]
    Garbage(String),
    /// An answer did not come in time.
    #[error("no answer: {0}")]
    TimedOut(String),
    /// The link is over.
    #[error("the link is over: {0}")]
    Over(String),
    /// The link has as many channels as it may.
    #[error("the link has as many channels as it may")]
    TooManyChannels,
    /// This host's own set-up does not allow it.
    #[error("{0}")]
    Local(String),
}

impl LinkError {
    /// True where the same dial may succeed a moment later.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            LinkError::Unreachable(_)
                | LinkError::TimedOut(_)
                | LinkError::Refused(_)
                | LinkError::Garbage(_)
        )
    }
}

impl LinkError {
    /// What is said to a host that is turned away: the other side says of what kind it is when it shows it.
    pub fn refusal(&self) -> Refused {
        let (code, text) = match self {
            LinkError::Token(text) => (RefusalCode::Token, text.clone()),
            LinkError::Refused(text) => (RefusalCode::Other, text.clone()),
            other => (RefusalCode::Other, other.to_string()),
        };
        Refused { code, text }
    }
}

impl From<Refused> for LinkError {
    fn from(Refused { code, text }: Refused) -> Self {
        match code {
            RefusalCode::Version => LinkError::Version(text),
            RefusalCode::NotPaired => LinkError::NotPaired(text),
            RefusalCode::WrongKey => LinkError::WrongKey(text),
            RefusalCode::UnknownLink => LinkError::UnknownLink(text),
            RefusalCode::Token => LinkError::Token(text),
            RefusalCode::WrongAddress | RefusalCode::Busy | RefusalCode::Other => LinkError::Refused(text),
        }
    }
}

impl From<ChannelError> for LinkError {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::TooMany => LinkError::TooManyChannels,
            other => LinkError::Over(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LinkError;

    #[test]
    fn what_is_said_to_the_other_host_is_not_said_twice_there() {
        for error in [
            LinkError::Refused("both hosts are named a; rename one".into()),
            LinkError::Token("it has been used".into()),
        ] {
            assert_eq!(LinkError::from(error.refusal()), error);
        }
        let other = LinkError::Local("the disk is full".into());
        assert_eq!(LinkError::from(other.refusal()).to_string(), "refused: the disk is full");
    }
}
