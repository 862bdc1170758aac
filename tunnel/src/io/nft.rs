//! Packet rules, by the `nft` program: its input on stdin, all of it or nothing of it.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Have nft do `script`. An error holds what nft said.
pub fn run(script: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        // Debian keeps it where only root looks.
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(error.kind(), "the program `nft` is missing; install nftables")
            }
            _ => error,
        })?;
    // A refusal of the input is told by the status, better than by the broken pipe.
    let sent = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output()?;
    if output.status.success() {
        return sent;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // The rest repeats the script.
    let first = said.lines().next().unwrap_or("nothing");
    Err(io::Error::other(format!("nft said: {first}")))
}
