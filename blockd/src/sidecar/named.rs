//! Whose is a sidecar that is named by the last part of a device's path alone, as 0.1.0 named it?
//!
//! `/dev/vg1/root` and `/dev/vg2/root` both had `root.blockd`. What it says of the disk that it belongs to must not be
//! forgotten, and must not be taken for another disk's:
//!
//! | it says | asked for its disk, by id | for another disk, by id, or of another size | nobody can tell |
//! |---|---|---|---|
//! | the guest's disk, and nothing under way | adopted | left where it is | adopted |
//! | fenced, a replica, sealed, recorded | adopted | refused | refused |
//!
//! Where the device has a sidecar of its own already, that one counts; unless both are of one disk, and the old one says
//! something that must not be passed over: then an older program has been at work since.

use thiserror::Error;

use super::{Header, Role};

/// What is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is this device's.
    Adopt,
    /// It is another device's.
    Leave,
}

/// Nobody can tell, and it matters.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "it is named by the last part of the device's path alone, and says that the disk {disk_id:?} {state}: this device \
     may be that disk, or another one of that name"
)]
pub struct Ambiguous {
    disk_id: String,
    state: &'static str,
}

/// Decides for a device of `size` bytes whose own sidecar is `own`, asked for by `disk_id` if one was given.
pub fn verdict(
    old: &Header,
    own: Option<&Header>,
    disk_id: Option<&str>,
    size: u64,
) -> Result<Verdict, Ambiguous> {
    let is_named = disk_id == Some(old.disk_id.as_str());
    let is_other = disk_id.is_some_and(|id| id != old.disk_id) || (!is_named && size != old.size);
    let state = state_that_matters(old);
    let refused = |state| Ambiguous { disk_id: old.disk_id.clone(), state };
    match (own, state) {
        (Some(own), _) if is_other || own.disk_id != old.disk_id => Ok(Verdict::Leave),
        (Some(_), None) => Ok(Verdict::Leave),
        (Some(_), Some(state)) => Err(refused(state)),
        (None, _) if is_named => Ok(Verdict::Adopt),
        (None, Some(state)) => Err(refused(state)),
        (None, None) if is_other => Ok(Verdict::Leave),
        (None, None) => Ok(Verdict::Adopt),
    }
}

/// What of a disk must neither be forgotten nor be said of another one.
fn state_that_matters(header: &Header) -> Option<&'static str> {
    match header.role {
        Role::Fenced => Some("has moved to another host"),
        Role::Replica => Some("is a replica"),
        Role::Primary | Role::Promoted if header.sealed != 0 => Some("is sealed"),
        Role::Primary | Role::Promoted if header.recording => Some("is recorded for a replica"),
        Role::Primary | Role::Promoted => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn header(role: Role) -> Header {
        Header::new("root", SIZE, role, [0; 16]).unwrap()
    }

    fn word(verdict: Result<Verdict, Ambiguous>) -> &'static str {
        match verdict {
            Ok(Verdict::Adopt) => "adopt",
            Ok(Verdict::Leave) => "leave",
            Err(_) => "refuse",
        }
    }

    #[test]
    fn every_state_and_every_question_has_its_row() {
        let sealed = Header { sealed: 3, ..header(Role::Promoted) };
        let recorded = Header { recording: true, ..header(Role::Primary) };
        let plain = [header(Role::Primary), header(Role::Promoted)];
        let heavy = [header(Role::Fenced), header(Role::Replica), sealed, recorded];
        // By id, by another id, by nothing, by nothing and of another size.
        let asked = [(Some("root"), SIZE), (Some("other"), SIZE), (None, SIZE), (None, SIZE + 1)];
        let own = header(Role::Primary);
        let others = Header { disk_id: "other".into(), ..own.clone() };
        for (olds, without, with_own, with_others) in [
            (&plain[..], ["adopt", "leave", "adopt", "leave"], ["leave"; 4], ["leave"; 4]),
            (
                &heavy[..],
                ["adopt", "refuse", "refuse", "refuse"],
                ["refuse", "leave", "refuse", "leave"],
                ["leave"; 4],
            ),
        ] {
            for old in olds {
                let row = |own: Option<&Header>| asked.map(|(id, size)| word(verdict(old, own, id, size)));
                assert_eq!(row(None), without, "{old:?}");
                assert_eq!(row(Some(&own)), with_own, "{old:?}");
                assert_eq!(row(Some(&others)), with_others, "{old:?}");
            }
        }
    }

    #[test]
    fn one_that_is_this_disks_is_adopted_whatever_the_size_for_a_start_says_what_is_wrong_then() {
        for old in [header(Role::Primary), header(Role::Fenced)] {
            assert_eq!(verdict(&old, None, Some("root"), SIZE + 1), Ok(Verdict::Adopt));
        }
    }

    #[test]
    fn the_refusal_says_what_it_is_about() {
        let text = verdict(&header(Role::Fenced), None, None, SIZE).unwrap_err().to_string();
        assert!(text.contains("\"root\" has moved to another host"), "{text}");
    }
}
