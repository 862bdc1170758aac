//! One file of Rust, and the same file with everything blanked that is not code.
//!
//! Blanked text keeps its line breaks and its length, so a place in one is a place in the other.

use std::fs;
use std::io;
use std::path::Path;

/// A source file.
#[derive(Clone, Debug)]
pub struct Source {
    /// From the root of the workspace, with `/`.
    pub path: String,
    /// As written.
    pub text: String,
    /// With comments, strings and character literals blanked.
    pub code: String,
}

impl Source {
    /// A source from its text.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    /// Every `.rs` file of the given crates, sorted by path.
    pub fn read_all(root: &Path, crates: &[&str]) -> io::Result<Vec<Self>> {
        let mut sources = Vec::new();
        for name in crates {
            read_folder(root, &root.join(name), &mut sources)?;
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(sources)
    }

    /// Lines, counted from one, as code only.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// How many lines come before the unit tests at the file's end; all of them without such.
    pub fn product_lines(&self) -> usize {
        let lines: Vec<&str> = self.code.lines().map(str::trim).collect();
        lines
            .iter()
            .position(|line| *line == "#[cfg(test)]")
            .filter(|at| {
                lines.get(at + 1).is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
            })
            .unwrap_or(lines.len())
    }

    /// The code before the unit tests.
    pub fn product_code(&self) -> String {
        self.code.lines().take(self.product_lines()).fold(String::new(), |code, line| code + line + "\n")
    }

    /// True for a file that holds nothing but tests.
    pub fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The line of a byte offset into `code`.
    pub fn line_at(&self, offset: usize) -> usize {
        1 + self.code[..offset].bytes().filter(|byte| *byte == b'\n').count()
    }
}

fn read_folder(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_folder(root, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            sources.push(Source::new(&name, &fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

/// Replaces each byte of comments, strings and character literals by a space, line breaks apart.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + literal_length(bytes, at);
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    // Outside of literals Rust code may hold other letters too; they only lose their shape here.
    String::from_utf8_lossy(&code).into_owned()
}

/// Length of the comment or literal that begins at `at`; 0 for code.
fn literal_length(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment_length(rest),
        [b'"', ..] => string_length(rest),
        [b'r', b'"' | b'#', ..] if !in_word => raw_string_length(rest, 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !in_word => raw_string_length(rest, 2),
        [b'\'', b'\\', ..] => 3 + rest[3..].iter().position(|byte| *byte == b'\'').map_or(0, |n| n + 1),
        [b'\'', ..] => character_length(rest),
        _ => 0,
    }
}

fn block_comment_length(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// `prefix` letters, hashes, quote, text, quote, as many hashes. A raw identifier is not one.
fn raw_string_length(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let start = prefix + hashes + 1;
    if rest.get(start - 1) != Some(&b'"') {
        return 0;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let text = &rest[start..];
    text.windows(close.len()).position(|w| w == close).map_or(rest.len(), |n| start + n + close.len())
}

/// `'x'`, with any letter in it; 0 for a lifetime.
fn character_length(rest: &[u8]) -> usize {
    let length = match rest.get(1) {
        Some(0x00..=0x7f) => 1,
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(_) => 4,
        None => return 0,
    };
    if rest.get(1 + length) == Some(&b'\'') { length + 2 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn only_code_is_left_and_every_line_keeps_its_place() {
        let text = concat!(
            "//! says unsafe\n",
            "let a = \"un\\\"safe {\"; /* { /* nested */ unsafe */ let b = 1;\n",
            "let c = r#\"unsafe \" { \"#; let r#type = br\"{\"; // unsafe\n",
            "let d = ('{', '\\'', '\\u{7b}', 'ä', b'{'); fn f<'a>(x: &'a str) {}\n",
            "let multi = \"one\n  two {\n\";\n",
        );
        let source = Source::new("a/src/a.rs", text);
        assert_eq!(source.code.lines().count(), text.lines().count());
        assert!(!source.code.contains("unsafe") && !source.code.contains("two"));
        assert_eq!(source.code.matches('{').count(), 1, "{}", source.code);
        for kept in ["let b = 1;", "let r#type =", "fn f<'a>(x: &'a str) {}", "let multi ="] {
            assert!(source.code.contains(kept), "{kept} in {}", source.code);
        }
    }

    #[test]
    fn unit_tests_at_the_end_are_told_from_the_product() {
        let source = Source::new("a/src/a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n");
        assert_eq!(source.product_lines(), 1);
        assert_eq!(source.product_code(), "fn a() {}\n");
        let helper = Source::new("a/src/a.rs", "#[cfg(test)]\nfn a() {}\nfn b() {}\n");
        assert_eq!(helper.product_lines(), 3);
        let elsewhere = Source::new("a/src/a.rs", "#[cfg(test)]\nmod tests;\nfn b() {}\n");
        assert_eq!(elsewhere.product_lines(), 3);
    }

    #[test]
    fn files_of_tests_are_known_by_their_place() {
        let is_test = |path| Source::new(path, "").is_test();
        assert!(is_test("tests/tests/house.rs") && is_test("blockd/tests/x.rs"));
        assert!(is_test("blockd/src/pending/tests.rs"));
        assert!(!is_test("tests/src/house.rs") && !is_test("blockd/src/volume.rs"));
    }
}
