//! Packet rules, by the `nft` program: its input on stdin, all of it or nothing of it.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Have nft do `script`. An error holds what nft said.
pub fn run(script: &str) -> io::Result<()> {
    let mut child = nft(&["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    // A refusal of the input is told by the status, better than by the broken pipe.
    let sent = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output()?;
    if output.status.success() {
        return sent;
    }
    Err(refused(&output.stderr))
}

/// All rules of this host, as nft writes them in JSON (libnftables-json(5)).
pub fn ruleset() -> io::Result<String> {
    let output = nft(&["-j", "list", "ruleset"]).stdin(Stdio::null()).output().map_err(missing)?;
    if !output.status.success() {
        return Err(refused(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn nft(words: &[&str]) -> Command {
    let mut command = Command::new("nft");
    // Debian keeps it where only root looks.
    command.args(words).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin");
    command
}

fn missing(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), "the program `nft` is missing; install nftables")
        }
        _ => error,
    }
}

fn refused(said: &[u8]) -> io::Error {
    // The rest repeats the script.
    let first = String::from_utf8_lossy(said).lines().next().unwrap_or("nothing").to_owned();
    io::Error::other(format!("nft said: {first}"))
}
