//! A recording of what passes an interface of a site, to be searched afterwards.

use std::fs;
use std::path::PathBuf;

use crate::site::{Inmate, Site};
use crate::wait::{PATIENCE, wait_until};

/// Bytes of the header of a pcap file, and of each record in it.
const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;

/// A recording that goes on until [`Capture::finish`].
#[derive(Debug)]
pub struct Capture {
    tcpdump: Inmate,
    file: PathBuf,
}

impl Capture {
    pub(super) fn start(site: &Site, device: &str, filter: &str) -> Self {
        let name = format!("{device}.pcap");
        let file = site.join(&name);
        let inside = site.inside(&name).to_string_lossy().into_owned();
        // -Z: not as another user, who could not write here. Immediately: or the last packets are lost at the end.
        // -B: 64 MiB, for as long as others have the processors.
        let how = ["--immediate-mode", "-B", "65536", "-Z", "root", "-U", "-n", "-s", "0"];
        let words = [&how[..], &["-i", device, "-w", &inside, filter]].concat();
        let tcpdump = site.start("tcpdump", words, format!("{device}.tcpdump.log"));
        wait_until(PATIENCE, "tcpdump to listen", || tcpdump.log().contains("listening on"));
        Self { tcpdump, file }
    }

    /// Stop, and hand over what was recorded.
    pub fn finish(mut self) -> Recording {
        self.tcpdump.terminate();
        wait_until(PATIENCE, "tcpdump to end", || self.tcpdump.ended().is_some());
        assert!(self.tcpdump.log().contains("0 packets dropped by kernel"), "{}", self.tcpdump.log());
        Recording { bytes: fs::read(&self.file).expect("read a recording") }
    }
}

/// Packets that were recorded.
#[derive(Debug)]
pub struct Recording {
    bytes: Vec<u8>,
}

impl Recording {
    /// The packets, each from its Ethernet header on.
    pub fn packets(&self) -> Vec<&[u8]> {
        let mut rest = &self.bytes[FILE_HEADER_BYTES..];
        let mut packets = Vec::new();
        while rest.len() >= RECORD_HEADER_BYTES {
            let (header, tail) = rest.split_at(RECORD_HEADER_BYTES);
            // Seconds, microseconds, bytes kept, bytes on the wire; in the byte order of the machine.
            let kept = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
            packets.push(&tail[..kept]);
            rest = &tail[kept..];
        }
        packets
    }

    /// How many packets have `pattern` somewhere inside. A pattern cut by a packet's end is not seen, so search
    /// for something short that was sent many times.
    pub fn count(&self, pattern: &[u8]) -> usize {
        let has = |packet: &&&[u8]| packet.windows(pattern.len()).any(|window| window == pattern);
        self.packets().iter().filter(has).count()
    }
}
