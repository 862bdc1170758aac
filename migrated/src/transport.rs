//! What carries the connections of a link: TCP, or a program's standard input and output.
//!
//! ```text
//! "tcp"                                        a connection to the peer's address
//! "exec:ssh site-b migrated link-stdio"        a program: ["ssh", "site-b", "migrated", "link-stdio"]
//! ```
//!
//! The command is split into words and started as it is: there is no shell, so nothing is expanded and nobody's
//! quotes are read twice. Words are parted by blanks; 'single' quotes keep everything, "double" quotes everything
//! but a backslash before `"` or `\`, and a backslash outside of quotes the next letter. What only a shell could
//! mean (`|`, `;`, `&`, `<`, `>`, `(`, `)`, `` ` ``, `$`) is refused outside of quotes instead of being passed on.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What stands before a command.
const EXEC: &str = "exec:";
/// What a shell would not pass on.
const SHELLISH: &str = "|&;<>()`$";

/// What carries the connections of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP to the peer's addresses.
    #[default]
    Tcp,
    /// A program for each connection: its words, the first of which is the program.
    Exec(Vec<String>),
}

/// Why a transport was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransportError {
    /// Neither of the two.
    #[error(
        "{0:?} is no transport; write tcp, or exec: and a command like exec:ssh site-b migrated link-stdio"
    )]
    Unknown(String),
    /// No word in it.
    #[error("exec: names no program; write it like exec:ssh site-b migrated link-stdio")]
    Empty,
    /// A quote that is not closed, or a backslash at the end.
    #[error("the command ends within {0}")]
    Unfinished(&'static str),
    /// It was meant for a shell.
    #[error(
        "{0:?} means something to a shell only, and there is none; quote it, or name one: exec:sh -c '…'"
    )]
    Shell(char),
}

impl Transport {
    /// Reads it as people write it.
    pub fn parse(text: &str) -> Result<Self, TransportError> {
        match text.strip_prefix(EXEC) {
            Some(command) => {
                let words = words(command)?;
                if words.is_empty() { Err(TransportError::Empty) } else { Ok(Self::Exec(words)) }
            }
            None if text == "tcp" => Ok(Self::Tcp),
            None => Err(TransportError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transport::Tcp => f.write_str("tcp"),
            Transport::Exec(words) => write!(f, "{EXEC}{}", words.join(" ")),
        }
    }
}

/// The words of a command.
fn words(command: &str) -> Result<Vec<String>, TransportError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = command.chars();
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter.is_whitespace() => words.extend(word.take()),
            '\'' => single(&mut letters, word.get_or_insert_default())?,
            '"' => double(&mut letters, word.get_or_insert_default())?,
            '\\' => {
                let next = letters.next().ok_or(TransportError::Unfinished("a backslash"))?;
                word.get_or_insert_default().push(next);
            }
            _ if SHELLISH.contains(letter) => return Err(TransportError::Shell(letter)),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

/// To the end of single quotes.
fn single(letters: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), TransportError> {
    loop {
        match letters.next().ok_or(TransportError::Unfinished("single quotes"))? {
            '\'' => return Ok(()),
            letter => word.push(letter),
        }
    }
}

/// To the end of double quotes.
fn double(letters: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), TransportError> {
    let unfinished = TransportError::Unfinished("double quotes");
    loop {
        match letters.next().ok_or(unfinished.clone())? {
            '"' => return Ok(()),
            '\\' => match letters.next().ok_or(unfinished.clone())? {
                escaped @ ('"' | '\\') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            letter => word.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Transport, TransportError};

    fn exec(text: &str) -> Vec<String> {
        match Transport::parse(text).unwrap() {
            Transport::Exec(words) => words,
            Transport::Tcp => panic!("{text} is a command"),
        }
    }

    #[test]
    fn a_command_is_parted_at_blanks_and_quotes_are_honoured() {
        assert_eq!(Transport::parse("tcp"), Ok(Transport::Tcp));
        assert_eq!(
            exec("exec:ssh  site-b migrated\tlink-stdio "),
            ["ssh", "site-b", "migrated", "link-stdio"]
        );
        assert_eq!(exec(r#"exec:a 'b c' "d e" f\ g "" h'i'"j""#), ["a", "b c", "d e", "f g", "", "hij"]);
        assert_eq!(
            exec(r#"exec:sh -c 'nc b 7 | cat' "a\"b\\c\d""#),
            ["sh", "-c", "nc b 7 | cat", r#"a"b\c\d"#]
        );
    }

    #[test]
    fn what_is_no_command_is_refused_with_what_to_do() {
        assert_eq!(Transport::parse("exec: "), Err(TransportError::Empty));
        assert_eq!(Transport::parse("exec:a 'b"), Err(TransportError::Unfinished("single quotes")));
        assert_eq!(Transport::parse("exec:a \"b\\"), Err(TransportError::Unfinished("double quotes")));
        assert_eq!(Transport::parse("exec:a \\"), Err(TransportError::Unfinished("a backslash")));
        for (text, letter) in [("exec:zstd | nc b 7", '|'), ("exec:nc $HOST 7", '$'), ("exec:nc b 7 &", '&')]
        {
            assert_eq!(Transport::parse(text), Err(TransportError::Shell(letter)));
        }
        assert!(Transport::parse("ssh site-b").unwrap_err().to_string().contains("exec:ssh"));
    }

    #[test]
    fn it_is_shown_as_a_command() {
        assert_eq!(Transport::parse("exec:nc  b 7").unwrap().to_string(), "exec:nc b 7");
        assert_eq!(Transport::Tcp.to_string(), "tcp");
    }
}
