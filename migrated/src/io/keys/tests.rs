//! What is on disk: made once, private, read back, replaced as a whole, and refused with a reason.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{Keys, Peer, PeerStore};

/// A directory that is gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("migrated-keys-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn peer(name: &str, keys: &Keys) -> Peer {
    Peer {
        name: name.into(),
        address: "192.0.2.1:4801".parse().unwrap(),
        data_addresses: vec!["[2001:db8::1]:4802".parse().unwrap(), "192.0.2.9:4802".parse().unwrap()],
        key: *keys.spki(),
    }
}

#[test]
fn a_key_is_made_once_and_is_its_owners_alone() {
    let scratch = Scratch::new("once");
    let state = scratch.0.join("made/here");
    let made = Keys::load(&state).unwrap();
    let mode = std::fs::metadata(state.join("host.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(Keys::load(&state).unwrap().spki(), made.spki());
    assert!(!format!("{made:?}").contains("pkcs8"));
}

#[test]
fn a_key_that_others_may_read_and_one_that_is_none_are_refused() {
    let scratch = Scratch::new("bad");
    let path = scratch.0.join("host.key");
    Keys::load(&scratch.0).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let refused = Keys::load(&scratch.0).unwrap_err().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&path, b"nonsense").unwrap();
    let refused = Keys::load(&scratch.0).unwrap_err().to_string();
    assert!(refused.contains("not an Ed25519 key"), "{refused}");
}

#[test]
fn peers_are_read_back_replaced_and_forgotten() {
    let scratch = Scratch::new("peers");
    let store = PeerStore::load(&scratch.0).unwrap();
    let [first, second] = [Keys::generate(), Keys::generate()];
    store.put(peer("b", &first)).unwrap();
    store.put(peer("a", &second)).unwrap();
    let again = PeerStore::load(&scratch.0).unwrap();
    assert_eq!(again.all(), [peer("a", &second), peer("b", &first)]);
    assert_eq!(again.by_key(second.spki()), Some(peer("a", &second)));
    // A host that was set up anew, and one that was renamed, do not stay beside their former selves.
    let third = Keys::generate();
    store.put(peer("a", &third)).unwrap();
    store.put(peer("c", &first)).unwrap();
    assert_eq!(store.all(), [peer("a", &third), peer("c", &first)]);
    assert!(store.remove("a").unwrap() && !store.remove("a").unwrap());
    assert_eq!(PeerStore::load(&scratch.0).unwrap().all(), [peer("c", &first)]);
    let mode = std::fs::metadata(scratch.0.join("peers.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_of_peers_that_says_nothing_sensible_is_refused_with_its_place() {
    let scratch = Scratch::new("nonsense");
    let path = scratch.0.join("peers.toml");
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        PeerStore::load(&scratch.0).unwrap_err().to_string()
    };
    let of_key = refused("[[peer]]\nname = \"a\"\naddress = \"192.0.2.1:1\"\nkey = \"abc\"\n");
    assert!(of_key.contains("the key of a is not one; pair with it again"), "{of_key}");
    let of_line = refused("[[peer]]\nname = \"a\"\nsurprise = 1\n");
    assert!(of_line.contains("line 3"), "{of_line}");
}
