//! What the client has sent and heard. Times are microseconds since the prober's start.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Everything that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Moments with a name.
    pub marks: Vec<Mark>,
    /// Lines of the echo session, in the order in which they were sent.
    pub lines: Vec<Exchange>,
    /// Datagrams, in the order in which they were sent.
    pub datagrams: Vec<Exchange>,
    /// Connections of the echo session; one, if nothing happened to it.
    pub connections: Vec<Connection>,
    /// What each disk's writer said.
    pub disks: Vec<Numbers>,
    /// How long one more connection took at the end, its first answer included; none: it did not come about.
    pub new_connection_us: Option<u64>,
    /// When the last line was sent.
    pub end_us: u64,
}

/// A moment with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its name.
    pub name: String,
    /// When it was.
    pub at_us: u64,
}

/// Something sent, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// When it was sent.
    pub sent_us: u64,
    /// When the answer came.
    pub answered_us: Option<u64>,
    /// The guest's clock in the answer.
    pub guest_us: Option<u64>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Both ends.
    pub ends: (SocketAddr, SocketAddr),
    /// When it was there.
    pub opened_us: u64,
    /// When and how it was lost; none: it lived to the end.
    pub lost: Option<Loss>,
}

/// The end of a connection that nobody wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// When it was noticed.
    pub at_us: u64,
    /// It was reset, and not closed in order.
    pub was_reset: bool,
    /// What the system said.
    pub why: String,
}

/// Acknowledged numbers of one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Connections to its writer.
    pub connections: Vec<Connection>,
    /// What was heard, in the order in which it came.
    pub heard: Vec<Heard>,
}

/// Consecutive numbers that came at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Over which connection.
    pub connection: usize,
    /// When.
    pub at_us: u64,
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
}

impl Numbers {
    /// Take in a number that came at `at_us` over the newest connection.
    pub fn hear(&mut self, at_us: u64, number: u64) {
        let connection = self.connections.len().saturating_sub(1);
        match self.heard.last_mut() {
            Some(last) if (last.connection, last.at_us, last.last + 1) == (connection, at_us, number) => {
                last.last = number;
            }
            _ => self.heard.push(Heard { connection, at_us, first: number, last: number }),
        }
    }

    /// The highest number heard; all before it are acknowledged as well.
    pub fn highest(&self) -> u64 {
        self.heard.iter().map(|heard| heard.last).max().unwrap_or(0)
    }

    /// Where the order was broken: within a connection each number comes once, right behind the one before it, and
    /// no connection begins below what was heard already.
    pub fn disorder(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut highest = 0;
        for (index, heard) in self.heard.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| self.heard[before]);
            let follows = match before {
                Some(before) if before.connection == heard.connection => heard.first == before.last + 1,
                // A connection begins with the number of then.
                _ => heard.first >= highest,
            };
            if !follows {
                found.push(format!("{} came after {highest}, at {} us", heard.first, heard.at_us));
            }
            highest = highest.max(heard.last);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{Connection, Heard, Numbers};

    fn connection() -> Connection {
        let address = "10.0.0.1:7".parse().unwrap();
        Connection { ends: (address, address), opened_us: 0, lost: None }
    }

    #[test]
    fn numbers_that_come_at_once_are_kept_together() {
        let mut numbers = Numbers { connections: vec![connection()], ..Numbers::default() };
        for (at_us, number) in [(5, 10), (5, 11), (9, 12)] {
            numbers.hear(at_us, number);
        }
        let expected = [(5, 10, 11), (9, 12, 12)].map(|(at_us, first, last)| Heard {
            connection: 0,
            at_us,
            first,
            last,
        });
        assert_eq!(numbers.heard, expected);
        assert_eq!((numbers.highest(), numbers.disorder()), (12, vec![]));
    }

    #[test]
    fn a_number_that_is_missing_or_comes_twice_is_disorder() {
        let mut numbers = Numbers { connections: vec![connection()], ..Numbers::default() };
        for number in [1, 2, 4, 4] {
            numbers.hear(number, number);
        }
        assert_eq!(numbers.disorder(), ["4 came after 2, at 4 us", "4 came after 4, at 4 us"]);
    }

    #[test]
    fn a_new_connection_may_skip_but_never_go_back() {
        let mut numbers = Numbers { connections: vec![connection()], ..Numbers::default() };
        numbers.hear(1, 7);
        numbers.connections.push(connection());
        numbers.hear(2, 9);
        assert!(numbers.disorder().is_empty());
        numbers.connections.push(connection());
        numbers.hear(3, 8);
        assert_eq!(numbers.disorder(), ["8 came after 9, at 3 us"]);
    }
}
