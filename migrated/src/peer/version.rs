//! Which version a peer is, as far as it decides what may be said to it.
//!
//! Believed in no matter of safety: see `docs/wire.md`, *Other versions*.

/// The version that takes no field that it does not know.
const STRICT: [u64; 3] = [0, 1, 0];

/// Whether a peer of this version passes over fields that it does not know. One that cannot be read is as old as can be.
pub fn takes_new_fields(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u64>> = core.split('.').map(|number| number.parse().ok()).collect();
    // A version before 0.1.1, like 0.1.1-rc, comes after 0.1.0 all the same.
    matches!(numbers[..], [Some(major), Some(minor), Some(patch)] if [major, minor, patch] > STRICT)
}

#[cfg(test)]
mod tests {
    use super::takes_new_fields;

    #[test]
    fn only_what_is_newer_than_the_first_version_takes_new_fields() {
        for newer in ["0.2.0-dev", "0.2.0", "0.1.1-rc.1", "0.10.0+debian", "1.0.0"] {
            assert!(takes_new_fields(newer), "{newer}");
        }
        for old in ["0.1.0", "0.1.0-rc.1", "0.0.9", "", "new", "1.0", "0.2.x"] {
            assert!(!takes_new_fields(old), "{old}");
        }
    }
}
