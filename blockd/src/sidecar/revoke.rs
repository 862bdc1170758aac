//! A disk that is another host's by somebody's word, sealed or not (D11): an operator has taken its guest back where it came
//! from, and this one must not be served any more.
//!
//! Unlike a fence it is no step of a handover: what was written here since is given up with it. Only a newer generation
//! can do that, so that a word that comes late does nothing to a disk that has moved on.

use thiserror::Error;

use super::{Header, Role};

/// The disk is as new as that, or newer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("this disk is {} with generation {found}, and {asked} is not newer", .role.name())]
pub struct NotNewer {
    /// What the disk is.
    pub role: Role,
    /// Its generation.
    pub found: u64,
    /// The generation that it was to be given up for.
    pub asked: u64,
}

/// What a disk remembers once it is given up for `generation`, which is at `moved_to`. For one that was already, nothing
/// changes.
pub fn revoked(header: &Header, generation: u64, moved_to: &str) -> Result<Header, NotNewer> {
    if header.role == Role::Fenced && header.generation >= generation {
        return Ok(header.clone());
    }
    if generation <= header.generation {
        return Err(NotNewer { role: header.role, found: header.generation, asked: generation });
    }
    Ok(Header {
        role: Role::Fenced,
        generation,
        sealed: 0,
        recording: false,
        replicate_to: String::new(),
        moved_to: moved_to.to_owned(),
        ..header.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(role: Role, generation: u64) -> Header {
        let header = Header::new("disk", 1 << 20, role, [0; 16]).unwrap();
        Header { generation, sealed: 5, recording: true, replicate_to: "/run/x".into(), ..header }
    }

    #[test]
    fn a_disk_is_given_up_in_every_role_for_a_newer_generation_only() {
        for role in Role::ALL {
            let given_up = revoked(&header(role, 4), 5, "site-a").unwrap();
            assert_eq!((given_up.role, given_up.generation, given_up.sealed), (Role::Fenced, 5, 0));
            assert_eq!((given_up.moved_to.as_str(), given_up.recording), ("site-a", false));
            assert_eq!(revoked(&given_up, 5, "elsewhere").unwrap(), given_up, "said twice");
            let late = revoked(&header(role, 6), 5, "site-a");
            match role {
                Role::Fenced => assert_eq!(late.unwrap(), header(role, 6)),
                _ => assert_eq!(late.unwrap_err(), NotNewer { role, found: 6, asked: 5 }),
            }
        }
        let text = revoked(&header(Role::Promoted, 5), 5, "").unwrap_err().to_string();
        assert_eq!(text, "this disk is promoted with generation 5, and 5 is not newer");
    }
}
