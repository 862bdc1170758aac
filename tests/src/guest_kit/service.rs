//! Talks to the command port of a guest's programs, from the place where a client is.

use std::collections::BTreeMap;
use std::io;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use super::place::Place;
use super::ports;
use crate::binaries;
use crate::program::Tool;
use crate::wait::{PATIENCE, found_within};

/// The command port of a guest.
#[derive(Clone, Debug)]
pub struct Service {
    place: Place,
    address: Ipv4Addr,
}

/// An answer: its first word, and what it says as `name=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The whole line.
    pub line: String,
    /// `name=value`.
    pub values: BTreeMap<String, String>,
}

impl Answer {
    /// Take an answer apart.
    pub fn parse(line: &str) -> Self {
        let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
        let values = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { line: line.trim().to_owned(), values }
    }

    /// Whether it says that all is well.
    pub fn is_ok(&self) -> bool {
        self.line == "ok" || self.line.starts_with("ok ")
    }

    /// A number of it.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        let value = self.values.get(name).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no number {name} in {:?}", self.line))
    }
}

impl Service {
    /// The guest at `address`, seen from `place`.
    pub fn at(place: Place, address: Ipv4Addr) -> Self {
        Self { place, address }
    }

    /// Wait until the guest answers.
    #[track_caller]
    pub fn wait_until_it_answers(&self) {
        let mut why = String::new();
        let answered = found_within(PATIENCE, || self.try_ask("uptime").map_err(|error| why = error).ok());
        assert!(answered.is_some(), "the guest answers no command within {PATIENCE:?}: {why}");
    }

    /// A command that has to succeed.
    #[track_caller]
    pub fn ask(&self, command: &str) -> Answer {
        let answer = self.try_ask(command).unwrap_or_else(|why| panic!("{command}: {why}"));
        assert!(answer.is_ok(), "{command}: {}", answer.line);
        answer
    }

    /// A command, and whatever comes of it.
    pub fn try_ask(&self, command: &str) -> Result<Answer, String> {
        let words = ["command", &self.address.to_string(), command].map(str::to_owned);
        let (name, words) = self.place.words(&prober(), words);
        let output = Tool::new(name).args(words).output();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(Answer::parse(&said)),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

/// The client's program.
pub fn prober() -> std::path::PathBuf {
    binaries::prober().expect("cargo has built the client's program")
}

/// What the program `prober command ADDRESS COMMAND` does: one command, one answer.
pub fn command(address: Ipv4Addr, command: &str) -> io::Result<String> {
    // Over a link with seconds in it, to a guest that has just come up.
    let limit = Duration::from_secs(15);
    let stream = TcpStream::connect_timeout(&(address, ports::COMMANDS).into(), limit)?;
    // A check of much memory takes an emulated guest its time.
    stream.set_read_timeout(Some(PATIENCE))?;
    (&stream).write_all(format!("{command}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = Answer::parse("ok pages=4096 versions=12\n");
        assert!(answer.is_ok());
        assert_eq!((answer.number("pages"), answer.number("versions")), (4096, 12));
        assert!(!Answer::parse("bad page=7 version=3").is_ok());
        assert!(!Answer::parse("okay").is_ok());
        assert!(!Answer::parse("").is_ok());
    }
}
