//! Who may ask for what, and when: every request of a peer passes this one table.
//!
//! A request is allowed in some stages of a visit, and about some accounts. An account is what the journal has of one
//! migration; it is the peer's if the guest came, or was to come, from there. Where a refusal holds for ever, the table
//! says so, and it is journalled before it is said (M2).

use super::Stage;
use crate::journal::Account;
use crate::peer::Request;

/// About whose account a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// About none.
    Nobodys,
    /// About the guest that came, or is coming, over this very link.
    ThisVisits,
    /// About any guest that came from this peer, or of which nothing is written here. What this host sends, or another
    /// sent, is not the peer's to ask for.
    ThisPeers,
    /// About any guest that moved between this peer and here, in either direction.
    SharedWithThisPeer,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The request's name on the wire.
    pub request: &'static str,
    /// In which stages of the visit.
    pub stages: &'static [Stage],
    /// About whose account.
    pub whose: Whose,
    /// A refusal is a promise: the guest will never be taken in this migration.
    pub refusal_is_promised: bool,
}

use Stage::{Loaded, Nothing, Over, Reserved, Running};

/// Every request.
pub const RULES: [Rule; 14] = [
    rule("reserve", &[Nothing], Whose::ThisPeers),
    rule("path-prepare", &[Reserved], Whose::ThisVisits),
    // Of a guest that was only looked at.
    rule("path-try", &[Nothing], Whose::Nobodys),
    rule("path-switch", &[Reserved, Loaded], Whose::ThisVisits),
    rule("path-back", &[Reserved, Loaded], Whose::ThisVisits),
    Rule { refusal_is_promised: true, ..rule("take", &[Loaded], Whose::ThisVisits) },
    rule("readdress", &[Running], Whose::ThisVisits),
    // What was taken is not given up by an order.
    rule("abort", &[Nothing, Reserved, Loaded, Over], Whose::Nobodys),
    rule("verdict", &Stage::ALL, Whose::ThisPeers),
    rule("consult", &Stage::ALL, Whose::SharedWithThisPeer),
    // Of this link's guest, or of one that came over a link that is over.
    rule("concluded", &[Nothing, Running], Whose::ThisPeers),
    rule("taken-back", &[Nothing, Over], Whose::ThisPeers),
    rule("introduce", &Stage::ALL, Whose::Nobodys),
    rule("mirror", &Stage::ALL, Whose::Nobodys),
];

const fn rule(request: &'static str, stages: &'static [Stage], whose: Whose) -> Rule {
    Rule { request, stages, whose, refusal_is_promised: false }
}

/// The row of a request.
pub fn rule_of(request: &Request) -> &'static Rule {
    RULES.iter().find(|rule| rule.request == request.name()).expect("every request has a row")
}

/// Whether a peer may ask for this now. `arriving` is the migration whose guest came, or is coming, over the peer's link;
/// `account` is that of the migration which the request names. The error says why not.
pub fn allow(
    stage: Stage,
    peer: &str,
    arriving: Option<&str>,
    request: &Request,
    account: &Account,
) -> Result<(), String> {
    let rule = rule_of(request);
    if !rule.stages.contains(&stage) {
        return Err(format!("{} is refused: {}", rule.request, stage.words()));
    }
    let named = request.migration();
    let is_theirs = match rule.whose {
        Whose::Nobodys => true,
        Whose::ThisVisits => arriving.is_some() && (named.is_none() || named == arriving),
        Whose::ThisPeers => account.is_from(peer),
        Whose::SharedWithThisPeer => account.is_shared_with(peer),
    };
    match (is_theirs, rule.whose) {
        (true, _) => Ok(()),
        (false, Whose::ThisVisits) => Err("nothing is reserved for this migration".to_owned()),
        (false, _) => Err(format!("{} is refused: the migration does not come from {peer}", rule.request)),
    }
}
