//! Finds the paths (`crate::a::{b, c::D as E}`) that a piece of code names.
//!
//! Takes blanked code; knows where a path starts, not what it means: see `modules`.

/// A path as written, groups taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its segments; a glob is `*`.
    pub segments: Vec<String>,
    /// The name it gets by `as`, else its last segment (the one before, where that is `self`).
    pub name: String,
    /// Where in the code it starts.
    pub offset: usize,
}

/// All paths of `use` items.
pub fn in_use_items(code: &str) -> Vec<Named> {
    words(code)
        .filter(|(_, word)| *word == "use")
        .flat_map(|(at, word)| tree(code, at + word.len()))
        .collect()
}

/// All paths that start with `crate`, `self` or `super`, in `use` items and elsewhere, and all
/// other paths of `use` items.
pub fn all(code: &str) -> Vec<Named> {
    let mut found = in_use_items(code);
    for (at, word) in words(code) {
        let follows_path = code[..at].trim_end().ends_with("::");
        let starts_path = code[at + word.len()..].starts_with("::");
        if matches!(word, "crate" | "self" | "super") && starts_path && !follows_path {
            found.extend(tree(code, at));
        }
    }
    found.sort_by(|a, b| (a.offset, &a.segments).cmp(&(b.offset, &b.segments)));
    found.dedup();
    found
}

/// Each word of code with its offset.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(is_letter)?;
        let end = code[start..].find(|c| !is_letter(c)).map_or(code.len(), |n| start + n);
        at = end;
        Some((start, &code[start..end]))
    })
}

fn tree(code: &str, at: usize) -> Vec<Named> {
    let mut found = Vec::new();
    Reader { code, at }.branch(&[], &mut found);
    found
}

struct Reader<'a> {
    code: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads one path below `stem`, up to the first thing that does not belong to it.
    fn branch(&mut self, stem: &[String], found: &mut Vec<Named>) {
        let mut segments = stem.to_vec();
        self.skip_space();
        let offset = self.at;
        loop {
            if self.eat("{") {
                while !self.eat("}") && self.at < self.code.len() {
                    let before = self.at;
                    self.branch(&segments, found);
                    if !self.eat(",") && self.at == before {
                        return;
                    }
                }
                return;
            }
            let segment = if self.eat("*") { "*" } else { self.word() };
            if segment.is_empty() {
                break;
            }
            segments.push(segment.to_owned());
            if !self.eat("::") {
                break;
            }
        }
        if segments.len() == stem.len() {
            return;
        }
        let name = self.alias().unwrap_or_else(|| last_name(&segments));
        found.push(Named { segments, name, offset });
    }

    fn alias(&mut self) -> Option<String> {
        let before = self.at;
        if self.word() == "as" {
            return Some(self.word().to_owned());
        }
        self.at = before;
        None
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        match words(&self.code[self.at..]).next() {
            Some((0, word)) => {
                self.at += word.len();
                word
            }
            _ => "",
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        let eaten = self.code[self.at..].starts_with(token);
        if eaten {
            self.at += token.len();
        }
        eaten
    }

    fn skip_space(&mut self) {
        let rest = &self.code[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }
}

fn last_name(segments: &[String]) -> String {
    let named = segments.iter().rev().find(|segment| *segment != "self");
    named.cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{all, in_use_items};

    fn written(code: &str) -> Vec<String> {
        all(code).iter().map(|named| named.segments.join("::")).collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        let code = "pub use crate::{a::{self, B as C}, d::*};\nuse std::io;";
        let found = in_use_items(code);
        let expected =
            [("crate::a::self", "a"), ("crate::a::B", "C"), ("crate::d::*", "*"), ("std::io", "io")];
        let got: Vec<_> = found.iter().map(|n| (n.segments.join("::"), n.name.clone())).collect();
        assert_eq!(got, expected.map(|(path, name)| (path.to_owned(), name.to_owned())));
    }

    #[test]
    fn paths_in_expressions_and_types_are_found() {
        let code = "fn f(x: crate::a::B<super::C>) -> self::D { crate::e::f(x); self.g() }";
        assert_eq!(written(code), ["crate::a::B", "super::C", "self::D", "crate::e::f"]);
    }

    #[test]
    fn broken_code_ends_the_reading() {
        assert_eq!(written("use crate::{a, ;"), ["crate::a"]);
        assert_eq!(written("use {"), [""; 0]);
    }
}
