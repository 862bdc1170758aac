//! The destination's side of a migration, decided: which request is allowed when.
//!
//! ```text
//! nothing ─ reserve ─► reserved ─ (memory arrives) ─► loaded ─ take ─► taken ─► running ─ readdress
//!                          └──────────── abort, end of the link ─┴──► over     (after *taken* there is no way back)
//! ```

use crate::peer::Request;

/// How far a guest has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing was asked for yet.
    Nothing,
    /// Room is kept, and what receives runs.
    Reserved,
    /// QEMU holds the whole guest, paused.
    Loaded,
    /// The guest is this host's (M2).
    Taken,
    /// It is up.
    Running,
    /// It does not come.
    Over,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Stage; 6] =
        [Stage::Nothing, Stage::Reserved, Stage::Loaded, Stage::Taken, Stage::Running, Stage::Over];

    fn words(self) -> &'static str {
        match self {
            Stage::Nothing => "nothing is reserved",
            Stage::Reserved => "the guest's memory has not arrived",
            Stage::Loaded => "the guest has not been taken",
            Stage::Taken => "the guest is taken and being started",
            Stage::Running => "the guest runs here",
            Stage::Over => "the migration is over",
        }
    }
}

/// Whether a request is allowed in a stage. The error says why not.
pub fn allow(stage: Stage, request: &Request) -> Result<(), String> {
    let (allowed, name): (&[Stage], &str) = match request {
        Request::Reserve(_) => (&[Stage::Nothing], "reserve"),
        Request::PathPrepare(_) => (&[Stage::Reserved], "path-prepare"),
        Request::PathTry(_) => (&[Stage::Nothing], "path-try"),
        Request::PathSwitch {} => (&[Stage::Reserved, Stage::Loaded], "path-switch"),
        Request::PathBack {} => (&[Stage::Reserved, Stage::Loaded], "path-back"),
        Request::Take { .. } => (&[Stage::Loaded], "take"),
        Request::Readdress {} => (&[Stage::Running], "readdress"),
        Request::Abort { .. } => (&[Stage::Nothing, Stage::Reserved, Stage::Loaded, Stage::Over], "abort"),
        // Looks only.
        Request::Verdict { .. } | Request::Consult { .. } | Request::Introduce {} | Request::Mirror(_) => {
            (&Stage::ALL, "")
        }
        Request::Concluded { .. } => (&[Stage::Nothing, Stage::Running], "concluded"),
        // Of a migration of long ago, or of this one's other link.
        Request::TakenBack { .. } => (&[Stage::Nothing, Stage::Over], "taken-back"),
    };
    if allowed.contains(&stage) { Ok(()) } else { Err(format!("{name} is refused: {}", stage.words())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::PathPrepare;

    fn requests() -> Vec<Request> {
        vec![
            Request::PathSwitch {},
            Request::PathBack {},
            Request::Take { migration: "m".into(), generation: 1, run: true },
            Request::Verdict { migration: "m".into(), generation: 1 },
            Request::Readdress {},
            Request::PathTry(PathPrepare { tunnel: 1, remote: [192, 0, 2, 1].into() }),
            Request::Abort { reason: String::new(), keep_disks: false },
        ]
    }

    #[test]
    fn nothing_is_taken_that_has_not_arrived_and_nothing_is_given_up_that_was_taken() {
        for request in requests() {
            let allowed: Vec<Stage> =
                Stage::ALL.into_iter().filter(|stage| allow(*stage, &request).is_ok()).collect();
            match request {
                Request::Take { .. } => assert_eq!(allowed, [Stage::Loaded]),
                // Of a guest that is only looked at.
                Request::PathTry(_) => assert_eq!(allowed, [Stage::Nothing]),
                Request::Abort { .. } | Request::PathBack {} => {
                    assert!(!allowed.contains(&Stage::Taken) && !allowed.contains(&Stage::Running));
                }
                Request::Verdict { .. } => assert_eq!(allowed, Stage::ALL),
                _ => assert!(!allowed.is_empty()),
            }
        }
        let refused = allow(Stage::Reserved, &requests()[2]).unwrap_err();
        assert_eq!(refused, "take is refused: the guest's memory has not arrived");
    }
}
