//! The plain configuration of an end of a link: what both tests and benchmarks of the link begin with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use migrated::io::keys::{Keys, PeerStore};
use migrated::io::link::{LinkConfig, Register};

/// A host of this name, with the keys and peers of its directory, that listens at `control`. Its patience is that of a
/// loaded machine.
pub fn plain(state_dir: &Path, name: &str, control: SocketAddr) -> LinkConfig {
    LinkConfig {
        name: name.to_owned(),
        keys: Keys::load(state_dir).expect("a key is there or made"),
        peers: PeerStore::load(state_dir).expect("the peers can be read"),
        control,
        data: Vec::new(),
        addresses: BTreeMap::new(),
        probes: true,
        register: Register::default(),
        bandwidth_bytes_per_s: None,
        transport: None,
        transports: BTreeMap::new(),
        congestion_control: "bbr".to_owned(),
        stripes: 8,
        versions: (1, 1),
        hello_within: Duration::from_secs(20),
        resume_for: Duration::from_secs(60),
    }
}
