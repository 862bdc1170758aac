//! What it is measured with and on: the programs by their digest, the processor, the kernel, the peers.

use std::fs;
use std::path::PathBuf;

use crate::binaries;
use crate::program::Tool;
use crate::requires::{Missing, program};

use super::record::Stamp;

/// Describe this machine, and the programs that are measured and that measure.
pub fn stamp() -> Result<Stamp, Missing> {
    for name in ["setpriv", "timeout", "date"] {
        program(name)?;
    }
    // Not by its path, at which there may be a newer one by now.
    let ours = PathBuf::from("/proc/self/exe");
    Ok(Stamp {
        programs: digest(&[binaries::blockd()?, binaries::migrated()?, ours]),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine(),
        peers: ["qemu-nbd", "nbdkit", "qemu-system-x86_64", "iperf3"].map(version).join("; "),
    })
}

/// The present time, in UTC.
pub fn now() -> String {
    Tool::new("date").args(["--utc", "+%FT%TZ"]).run().trim().to_owned()
}

/// Half of a digest is enough to tell programs apart.
fn digest(programs: &[PathBuf]) -> String {
    let mut hasher = blake3::Hasher::new();
    for path in programs {
        let bytes =
            fs::read(path).unwrap_or_else(|error| panic!("read the program {}: {error}", path.display()));
        hasher.update(blake3::hash(&bytes).as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name);
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib = memory.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{count} × {model}, {} MiB of memory, Linux {}", memory_kib >> 10, kernel.trim())
}

/// The first line of what a program says of its version.
fn version(name: &str) -> String {
    if program(name).is_err() {
        return format!("no {name}");
    }
    let said = Tool::new(name).arg("--version").run();
    said.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::digest;
    use crate::scratch::Scratch;
    use std::fs;

    #[test]
    fn a_digest_tells_programs_apart_also_by_who_is_who() {
        let scratch = Scratch::new();
        let paths = ["a", "b"].map(|name| scratch.join(name));
        fs::write(&paths[0], "one").unwrap();
        fs::write(&paths[1], "two").unwrap();
        let found = digest(&paths);
        assert_eq!(found.len(), 32);
        assert_ne!(found, digest(&[paths[1].clone(), paths[0].clone()]));
        fs::write(&paths[1], "three").unwrap();
        assert_ne!(found, digest(&paths));
    }
}
