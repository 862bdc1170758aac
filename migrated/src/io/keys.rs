//! This host's key and the hosts that it is paired with: `host.key` and `peers.toml` in the state directory.
//!
//! Both are readable by their owner only. `peers.toml` is replaced as a whole (written beside, synced, renamed), so a
//! crash leaves the old one or the new one. Keys are Ed25519; a public key is kept as the 44 bytes that TLS shows
//! (its SubjectPublicKeyInfo), in base32.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use data_encoding::BASE32_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::address::one_or_many;

/// Bytes of a public key as TLS shows it.
pub const SPKI_BYTES: usize = 44;
/// What stands before the 32 bytes of an Ed25519 key there (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The longest key file that is read.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// A public key as TLS shows it.
pub type Spki = [u8; SPKI_BYTES];

/// What is wrong with the files.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The file can't be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file says nothing sensible.
    #[error("{path}: {what}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What, and what to do.
        what: String,
    },
}

/// This host's key. A clone is the same key.
#[derive(Clone)]
pub struct Keys {
    pkcs8: Arc<[u8]>,
    spki: Spki,
}

impl Keys {
    /// A new key, kept nowhere.
    pub fn generate() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the system has randomness");
        Self::of_pkcs8(pkcs8.as_ref()).expect("it was just made")
    }

    /// The key in `<state_dir>/host.key`; made at the first start.
    pub fn load(state_dir: &Path) -> Result<Self, KeysError> {
        let path = state_dir.join("host.key");
        let failed = |error| KeysError::File { path: path.clone(), error };
        match File::open(&path) {
            Ok(file) => {
                let mode = file.metadata().map_err(failed)?.permissions().mode();
                if mode & 0o077 != 0 {
                    let what = format!("others may read this key (mode {:o}); chmod 600 it", mode & 0o777);
                    return Err(KeysError::Content { path, what });
                }
                let mut pkcs8 = Vec::new();
                file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut pkcs8).map_err(failed)?;
                Self::of_pkcs8(&pkcs8).ok_or_else(|| KeysError::Content {
                    path,
                    what:
                        "this is not an Ed25519 key (PKCS#8); if it is lost, remove the file and pair again"
                            .to_owned(),
                })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let keys = Self::generate();
                std::fs::create_dir_all(state_dir).map_err(failed)?;
                replace(&path, &keys.pkcs8).map_err(failed)?;
                Ok(keys)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn of_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
        let mut spki = [0; SPKI_BYTES];
        spki[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
        spki[SPKI_PREFIX.len()..].copy_from_slice(pair.public_key().as_ref());
        Some(Self { pkcs8: pkcs8.into(), spki })
    }

    /// The private key.
    pub(super) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key.
    pub fn spki(&self) -> &Spki {
        &self.spki
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("public", &fingerprint(&self.spki)).finish_non_exhaustive()
    }
}

/// A key in few letters, for people to compare.
pub fn fingerprint(spki: &[u8]) -> String {
    BASE32_NOPAD.encode(&crate::link::token::hash_key(spki)[..10]).to_lowercase()
}

/// A host that this one is paired with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its control address.
    pub address: SocketAddr,
    /// Its data addresses; none: the same.
    pub data_addresses: Vec<SocketAddr>,
    /// Its key.
    pub key: Spki,
}

/// A peer as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerEntry {
    name: String,
    address: SocketAddr,
    #[serde(default, alias = "data_address", deserialize_with = "one_or_many")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    data_addresses: Vec<SocketAddr>,
    key: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeersFile {
    #[serde(default)]
    peer: Vec<PeerEntry>,
}

/// The hosts that this one is paired with. A clone is the same store.
#[derive(Clone, Debug)]
pub struct PeerStore {
    path: Arc<PathBuf>,
    peers: Arc<Mutex<Vec<Peer>>>,
}

impl PeerStore {
    /// Reads `<state_dir>/peers.toml`; nothing there: no peers.
    pub fn load(state_dir: &Path) -> Result<Self, KeysError> {
        let path = state_dir.join("peers.toml");
        let peers = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text).map_err(|what| KeysError::Content { path: path.clone(), what })?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(KeysError::File { path, error }),
        };
        Ok(Self { path: Arc::new(path), peers: Arc::new(Mutex::new(peers)) })
    }

    /// All peers, by name.
    pub fn all(&self) -> Vec<Peer> {
        self.locked().clone()
    }

    /// The peer with this name.
    pub fn by_name(&self, name: &str) -> Option<Peer> {
        self.locked().iter().find(|peer| peer.name == name).cloned()
    }

    /// The peer with this key.
    pub fn by_key(&self, key: &[u8]) -> Option<Peer> {
        self.locked().iter().find(|peer| peer.key == key).cloned()
    }

    /// Adds a peer; one with the same name or key is replaced.
    pub fn put(&self, peer: Peer) -> Result<(), KeysError> {
        let mut peers = self.locked();
        let mut next = peers.clone();
        next.retain(|other| other.name != peer.name && other.key != peer.key);
        next.push(peer);
        next.sort_by(|a, b| a.name.cmp(&b.name));
        self.save(&next)?;
        *peers = next;
        Ok(())
    }

    /// Forgets a peer; true if there was one.
    pub fn remove(&self, name: &str) -> Result<bool, KeysError> {
        let mut peers = self.locked();
        let mut next = peers.clone();
        next.retain(|peer| peer.name != name);
        let found = next.len() < peers.len();
        if found {
            self.save(&next)?;
            *peers = next;
        }
        Ok(found)
    }

    fn save(&self, peers: &[Peer]) -> Result<(), KeysError> {
        let entry = |peer: &Peer| PeerEntry {
            name: peer.name.clone(),
            address: peer.address,
            data_addresses: peer.data_addresses.clone(),
            key: BASE32_NOPAD.encode(&peer.key).to_lowercase(),
        };
        let file = PeersFile { peer: peers.iter().map(entry).collect() };
        let text = toml::to_string(&file).expect("plain tables become TOML");
        let failed = |error| KeysError::File { path: self.path.to_path_buf(), error };
        replace(&self.path, text.as_bytes()).map_err(failed)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<Peer>> {
        self.peers.lock().expect("nobody panics with the peers in hand")
    }
}

fn parse(text: &str) -> Result<Vec<Peer>, String> {
    let file: PeersFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let peer = |entry: PeerEntry| {
        let key = BASE32_NOPAD.decode(entry.key.to_uppercase().as_bytes()).ok();
        let key = key.and_then(|key| Spki::try_from(key).ok());
        let key = key.ok_or(format!("the key of {} is not one; pair with it again", entry.name))?;
        Ok(Peer { name: entry.name, address: entry.address, data_addresses: entry.data_addresses, key })
    };
    file.peer.into_iter().map(peer).collect()
}

/// Puts a file in place of another in one step, readable by its owner only.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    // The mode counts only for a new file; one that a crash left may have another.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests;
