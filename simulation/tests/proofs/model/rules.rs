//! The rules of the protocol that can be left out, to prove that the model notices.

/// What is kept. All of it, unless a test says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Who is asked before anything was promised promises *refused* (M2).
    pub verdict_is_journalled: bool,
    /// Who has refused does not take (M2).
    pub refusals_hold: bool,
    /// The source gives up what it has when the guest runs there, not when it was taken (M8).
    pub fence_when_running: bool,
    /// After *releasing* the source asks, and does not go on by itself (M2).
    pub ask_after_releasing: bool,
    /// *Started* is journalled before the guest runs (M8).
    pub started_before_it_runs: bool,
    /// A disk that was promoted is fenced before its guest is handed back (M1).
    pub fence_before_handing_back: bool,
    /// The destination journals *done* when the source has said that it knows of the guest there, not before.
    pub done_when_the_source_knows: bool,
    /// A source that waits for an answer asks again, also on a link that lives.
    pub asks_again: bool,
    /// A source that finds an operator's word last in its journal brings the guest back: it was said, and is perhaps
    /// not done.
    pub operators_word_is_carried_out: bool,
    /// A destination that lost its guest asks the source before it starts it from its disk, unless the source is known
    /// to have given it up.
    pub ask_whose_guest_it_is: bool,
}

impl Rules {
    /// All.
    pub const ALL: Rules = Rules {
        verdict_is_journalled: true,
        refusals_hold: true,
        fence_when_running: true,
        ask_after_releasing: true,
        started_before_it_runs: true,
        fence_before_handing_back: true,
        done_when_the_source_knows: true,
        asks_again: true,
        operators_word_is_carried_out: true,
        ask_whose_guest_it_is: true,
    };
}
