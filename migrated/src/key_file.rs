//! The text of a file with a DNS key (TSIG), in each of the ways in which programs write it.
//!
//! ```text
//! MDEy…kZWY=                                             the secret alone: hmac-sha256, under the configured name
//! key "mover" { algorithm hmac-sha256; secret "MDEy"; };  tsig-keygen, and BIND's configuration
//! key:                                                   keymgr -t, and Knot's configuration
//!   - id: mover
//!     algorithm: hmac-sha256
//!     secret: MDEy…
//! ```
//!
//! It refuses what it does not understand, by line, and never repeats what may be the secret.

use data_encoding::BASE64;
use thiserror::Error;
use tunnel::KeyAlgorithm;

/// Why a text holds no key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}")]
pub struct KeyFault {
    /// Counted from one; 0: nowhere in particular.
    pub line: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

/// A key's values: what it signs by, and its secret.
pub type KeyValues = (KeyAlgorithm, Vec<u8>);

/// The key called `name` in `text`; a secret alone has no name.
pub fn parse(text: &str, name: &str) -> Result<KeyValues, KeyFault> {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !is_comment(line));
    let written = match first {
        None => {
            return Err(fault(
                0,
                "it is empty; write the secret into it, or what tsig-keygen or keymgr print",
            ));
        }
        Some(_) if text.lines().any(|line| line.trim_end() == "key:") => in_yaml(text)?,
        Some(_) if text.lines().any(|line| is_clause(line.trim())) => in_clauses(text)?,
        Some(_) => return alone(text),
    };
    let is_it =
        |key: &&Written| key.name.trim_end_matches('.').eq_ignore_ascii_case(name.trim_end_matches('.'));
    let found = written.iter().find(is_it).ok_or_else(|| {
        let names: Vec<&str> = written.iter().map(|key| key.name.as_str()).collect();
        let line = written.first().map_or(0, |key| key.line);
        fault(
            line,
            format!("it holds the key {}, and none called {name}; correct key_name", names.join(", ")),
        )
    })?;
    found.values()
}

/// A key as it stands in a file.
#[derive(Default)]
struct Written {
    line: usize,
    name: String,
    algorithm: Option<(usize, String)>,
    secret: Option<(usize, String)>,
}

impl Written {
    fn set(&mut self, line: usize, field: &str, value: &str) -> Result<(), KeyFault> {
        let place = match field {
            "algorithm" => &mut self.algorithm,
            "secret" => &mut self.secret,
            _ => {
                return Err(fault(
                    line,
                    format!("{field:?} is not understood; a key has an algorithm and a secret"),
                ));
            }
        };
        *place = Some((line, value.to_owned()));
        Ok(())
    }

    fn values(&self) -> Result<KeyValues, KeyFault> {
        let lacks = |what: &str| fault(self.line, format!("the key {} has no {what}", self.name));
        let (line, algorithm) = self.algorithm.as_ref().ok_or_else(|| lacks("algorithm"))?;
        let algorithm = KeyAlgorithm::of_name(algorithm).ok_or_else(|| {
            let known: Vec<&str> = KeyAlgorithm::NAMES.iter().map(|(name, _)| *name).collect();
            fault(*line, format!("the algorithm {algorithm:?} is not known; use one of {}", known.join(", ")))
        })?;
        let (line, secret) = self.secret.as_ref().ok_or_else(|| lacks("secret"))?;
        Ok((algorithm, decode(*line, secret)?))
    }
}

fn fault(line: usize, what: impl Into<String>) -> KeyFault {
    KeyFault { line, what: what.into() }
}

fn is_comment(line: &str) -> bool {
    line.starts_with('#')
}

fn is_clause(line: &str) -> bool {
    line.strip_prefix("key").is_some_and(|rest| rest.starts_with([' ', '\t', '"', '{']))
}

fn decode(line: usize, secret: &str) -> Result<Vec<u8>, KeyFault> {
    let secret = BASE64.decode(secret.as_bytes()).map_err(|error| {
        let what = "the secret is not base64";
        fault(line, format!("{what} ({:?} at letter {}); copy it whole", error.kind, error.position + 1))
    })?;
    if secret.is_empty() { Err(fault(line, "the secret is empty")) } else { Ok(secret) }
}

fn alone(text: &str) -> Result<KeyValues, KeyFault> {
    let mut lines =
        (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !is_comment(line));
    let (line, secret) = lines.next().expect("there is a first line");
    if let Some((line, _)) = lines.next() {
        let what = "one line with the secret is all that may be here, or what tsig-keygen or keymgr print";
        return Err(fault(line, what));
    }
    Ok((KeyAlgorithm::default(), decode(line, secret)?))
}

/// Knot's way: as much of YAML as its tools write.
fn in_yaml(text: &str) -> Result<Vec<Written>, KeyFault> {
    let mut keys: Vec<Written> = Vec::new();
    let mut is_inside = false;
    for (number, raw) in (1..).zip(text.lines()) {
        let line = raw.split(" #").next().unwrap_or_default().trim_end();
        if line.trim().is_empty() || is_comment(line.trim()) {
            continue;
        }
        if !line.starts_with([' ', '-']) {
            is_inside = line == "key:";
            continue;
        }
        if !is_inside {
            continue;
        }
        let item = line.trim_start();
        let (begins, item) = item.strip_prefix('-').map_or((false, item), |rest| (true, rest.trim_start()));
        let Some((field, value)) = item.split_once(':') else {
            return Err(fault(number, "this is no line like \"secret: …\""));
        };
        let value = value.trim().trim_matches('"');
        match (begins, field.trim()) {
            (true, "id") => keys.push(Written { line: number, name: value.to_owned(), ..Written::default() }),
            (true, _) => return Err(fault(number, "a key begins by its name: \"- id: NAME\"")),
            (false, field) => match keys.last_mut() {
                Some(key) => key.set(number, field, value)?,
                None => return Err(fault(number, "a key begins by its name: \"- id: NAME\"")),
            },
        }
    }
    Ok(keys)
}

/// BIND's way.
fn in_clauses(text: &str) -> Result<Vec<Written>, KeyFault> {
    let mut keys = Vec::new();
    let mut words = words(text)?.into_iter();
    while let Some((line, word)) = words.next() {
        match word.as_str() {
            "key" => {}
            ";" => continue,
            _ => {
                return Err(fault(
                    line,
                    "this is no clause like key \"NAME\" { algorithm …; secret \"…\"; };",
                ));
            }
        }
        let mut next =
            || words.next().ok_or_else(|| fault(line, "this clause does not end; is the file cut off?"));
        let name = next()?.1;
        let mut key = Written { line, name, ..Written::default() };
        let (at, brace) = next()?;
        if brace != "{" {
            return Err(fault(at, format!("a \"{{\" is missing behind the name of the key {}", key.name)));
        }
        loop {
            let (line, field) = next()?;
            match field.as_str() {
                "}" => break,
                ";" => continue,
                _ => {}
            }
            let (_, value) = next()?;
            key.set(line, &field, &value)?;
            let (at, end) = next()?;
            if end != ";" {
                return Err(fault(at, format!("a \";\" is missing behind the {field}")));
            }
        }
        keys.push(key);
    }
    Ok(keys)
}

/// The words of a text, each with its line; `{`, `}` and `;` are words, comments are none.
fn words(text: &str) -> Result<Vec<(usize, String)>, KeyFault> {
    let mut words = Vec::new();
    let mut rest = text;
    let line_of = |rest: &str| 1 + text[..text.len() - rest.len()].matches('\n').count();
    loop {
        rest = rest.trim_start();
        let line = line_of(rest);
        let Some(first) = rest.chars().next() else { return Ok(words) };
        if first == '#' || rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(inside) = rest.strip_prefix("/*") {
            rest = inside.split_once("*/").ok_or_else(|| fault(line, "this comment does not end"))?.1;
        } else if let Some(inside) = rest.strip_prefix('"') {
            let (word, behind) = inside.split_once('"').ok_or_else(|| fault(line, "a quote is missing"))?;
            words.push((line, word.to_owned()));
            rest = behind;
        } else {
            let ends = |letter: char| letter.is_whitespace() || "{};\"".contains(letter);
            let len = if "{};".contains(first) { 1 } else { rest.find(ends).unwrap_or(rest.len()) };
            words.push((line, rest[..len].to_owned()));
            rest = &rest[len..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyAlgorithm, parse};

    const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    fn of(text: &str) -> (KeyAlgorithm, Vec<u8>) {
        parse(text, "mover").unwrap_or_else(|fault| panic!("{}: {fault} in {text}", fault.line))
    }

    #[track_caller]
    fn refused(text: &str, line: usize, what: &str) {
        let fault = parse(text, "mover").unwrap_err();
        assert!(fault.line == line && fault.what.contains(what), "{fault:?} in {text}");
        assert!(!fault.what.contains("MDEy"), "the secret is told: {fault}");
    }

    fn clause(algorithm: &str) -> String {
        format!("key \"mover\" {{\n\talgorithm {algorithm};\n\tsecret \"{SECRET}\";\n}};\n")
    }

    fn yaml(algorithm: &str) -> String {
        format!(
            "# {algorithm}:mover:{SECRET}\nkey:\n  - id: mover\n    algorithm: {algorithm}\n    secret: {SECRET}\n"
        )
    }

    #[test]
    fn a_key_is_read_as_each_program_writes_it() {
        let secret = b"0123456789abcdef0123456789abcdef".to_vec();
        for text in [
            format!("{SECRET}\n"),
            format!("# of the primary\n  {SECRET}  \n\n"),
            clause("hmac-sha256"),
            format!("key mover {{ algorithm HMAC-SHA256; secret {SECRET}; }};"),
            format!("/* ours */ // or theirs\n{}", clause("hmac-sha256.")),
            yaml("hmac-sha256"),
            yaml("hmac-sha256").replace("id: mover", "id: \"mover.\""),
        ] {
            assert_eq!(of(&text), (KeyAlgorithm::HmacSha256, secret.clone()), "{text}");
        }
        assert_eq!(of(&clause("hmac-sha512")).0, KeyAlgorithm::HmacSha512);
        assert_eq!(of(&yaml("hmac-sha384")).0, KeyAlgorithm::HmacSha384);
        // "//" is no comment within base64.
        assert_eq!(of("AA//AA==").1, [0, 15, 255, 0]);
    }

    #[test]
    fn of_several_keys_the_one_of_the_configured_name_is_taken() {
        let other = clause("hmac-sha1").replace("mover", "other");
        assert_eq!(of(&(other.clone() + &clause("hmac-sha256"))).0, KeyAlgorithm::HmacSha256);
        refused(&other, 1, "it holds the key other, and none called mover");
        // All of Knot's configuration will do.
        let whole =
            format!("server:\n  listen: 127.0.0.1\n{}acl:\n  - id: x\n    key: mover\n", yaml("hmac-sha512"));
        assert_eq!(of(&whole).0, KeyAlgorithm::HmacSha512);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        refused("", 0, "it is empty");
        refused("# nothing\n", 0, "it is empty");
        refused("\nMDEyMzQ1!", 2, "not base64");
        refused("MDEyMzQ1\nMDEyMzQ1\n", 2, "one line with the secret");
        refused(&clause("hmac-md5"), 2, "\"hmac-md5\" is not known; use one of hmac-sha1");
        refused(&yaml("hmac-sha224"), 4, "\"hmac-sha224\" is not known");
        refused(&clause("hmac-sha256").replace("kZWY=", "!"), 3, "not base64");
        refused(&clause("hmac-sha256").replace(SECRET, ""), 3, "the secret is empty");
        refused(&yaml("hmac-sha256").replace(&format!("    secret: {SECRET}\n"), ""), 3, "has no secret");
        refused("key \"mover\" {\n algorithm hmac-sha256;\n", 1, "does not end");
        refused("key \"mover\" {\n algorithm hmac-sha256\n secret \"MDEy\";\n};", 3, "\";\" is missing");
        refused("key mover algorithm hmac-sha256;", 1, "\"{\" is missing");
        refused("key mover { colour red; };", 1, "\"colour\" is not understood");
        refused("key:\n  - algorithm: hmac-sha256\n", 2, "begins by its name");
        refused("key:\n  nonsense\n", 2, "no line like");
    }
}
