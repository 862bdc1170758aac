//! How a file looks from outside: its header, its size, the size of its functions, its name.
//!
//! Sizes are a ratchet: a file or function over the limit must be named in the exceptions with the
//! size that it has, and the entry follows it down, never up.

use super::paths::words;
use super::{Finding, Source};

/// Lines of a file before its unit tests. Room for one concern, whole: an `impl` is not scattered over files for a number.
pub const FILE_LINES_MAX: usize = 500;

/// Lines of a function, from `fn` to its closing brace.
pub const FUNCTION_LINES_MAX: usize = 70;

/// Fewest words of a header that says anything.
const HEADER_WORDS_MIN: usize = 5;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 9] =
    ["common", "util", "utils", "helper", "helpers", "manager", "misc", "info", "data"];

/// A file, or a function as `file::name`, that may be longer than the limit, and its lines now.
pub type Exception = (&'static str, usize);

/// Every file opens with a `//!` header of at least one sentence.
pub fn header(source: &Source) -> Vec<Finding> {
    let header: Vec<&str> = source.text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let text = header.join(" ");
    let has_sentence = text.contains(['.', ':', '?']);
    if has_sentence && text.split_whitespace().count() >= HEADER_WORDS_MIN {
        return Vec::new();
    }
    let what = "no header; open the file with `//!` and a sentence that says what is in here and what is not";
    vec![Finding::new(source, 1, what)]
}

/// No file or folder has a name that fits anything.
pub fn empty_name(source: &Source) -> Vec<Finding> {
    let stem = source.path.trim_end_matches(".rs");
    stem.split('/')
        .filter(|part| EMPTY_NAMES.contains(part))
        .map(|part| {
            Finding::new(source, 1, format!("`{part}` says nothing; name the module after what it holds"))
        })
        .collect()
}

/// Files are short.
pub fn file_size(source: &Source, exceptions: &[Exception]) -> Vec<Finding> {
    if source.is_test() {
        return Vec::new();
    }
    let lines = source.product_lines();
    let verdict = judge(lines, FILE_LINES_MAX, &source.path, exceptions);
    verdict.map(|what| Finding::new(source, lines, format!("file of {what}"))).into_iter().collect()
}

/// Functions are short.
pub fn function_size(source: &Source, exceptions: &[Exception]) -> Vec<Finding> {
    if source.is_test() {
        return Vec::new();
    }
    functions(&source.product_code())
        .into_iter()
        .filter_map(|Function { name, first_line, lines }| {
            let key = format!("{}::{name}", source.path);
            let what = judge(lines, FUNCTION_LINES_MAX, &key, exceptions)?;
            Some(Finding::new(source, first_line, format!("function `{name}` of {what}")))
        })
        .collect()
}

/// Every exception names something that is there.
pub fn stale_exceptions(sources: &[Source], exceptions: &[Exception]) -> Vec<Finding> {
    let exists = |key: &str| {
        sources.iter().any(|source| match key.strip_prefix(&source.path) {
            Some("") => true,
            Some(rest) => {
                let name = rest.trim_start_matches("::");
                functions(&source.product_code()).iter().any(|function| function.name == name)
            }
            None => false,
        })
    };
    exceptions
        .iter()
        .filter(|(key, _)| !exists(key))
        .map(|(key, _)| Finding {
            path: (*key).to_owned(),
            line: 1,
            what: "is in the list of exceptions but no longer there; take it out".to_owned(),
        })
        .collect()
}

/// What is wrong with so many lines, if anything.
fn judge(lines: usize, max: usize, key: &str, exceptions: &[Exception]) -> Option<String> {
    match exceptions.iter().find(|(name, _)| *name == key) {
        None if lines > max => Some(format!("{lines} lines; the limit is {max}: split it")),
        Some((_, allowed)) if lines > *allowed => {
            Some(format!("{lines} lines; its exception allows {allowed}: it may only shrink"))
        }
        Some(_) if lines <= max => Some(format!("{lines} lines needs no exception any more; take it out")),
        Some((_, allowed)) if lines < *allowed => {
            Some(format!("{lines} lines; it shrank: write {lines} for {allowed} into its exception"))
        }
        _ => None,
    }
}

struct Function {
    name: String,
    first_line: usize,
    lines: usize,
}

/// The functions with a body in a piece of blanked code, also those inside others.
fn functions(code: &str) -> Vec<Function> {
    let line_at = |offset: usize| 1 + code[..offset].matches('\n').count();
    words(code)
        .filter(|(at, word)| *word == "fn" && !code[at + 2..].trim_start().starts_with('('))
        .filter_map(|(at, _)| {
            let (_, name) = words(&code[at + 2..]).next()?;
            let end = body_end(&code[at..])?;
            let (first_line, last_line) = (line_at(at), line_at(at + end));
            Some(Function { name: name.to_owned(), first_line, lines: last_line - first_line + 1 })
        })
        .collect()
}

/// Offset of the brace that closes a function's body; none for a declaration.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0, 0);
    for (at, letter) in code.char_indices() {
        match letter {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            ';' if braces == 0 && brackets == 0 => return None,
            _ => {}
        }
        if letter == '}' && braces == 0 && brackets == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{empty_name, file_size, function_size, functions, header, stale_exceptions};
    use crate::house::Source;

    fn source(text: &str) -> Source {
        Source::new("blockd/src/volume.rs", text)
    }

    #[test]
    fn a_file_without_a_sentence_at_its_top_is_found() {
        for bad in ["", "use std::io;\n", "//! volume.\n", "\n//! One guest-visible disk: every request.\n"] {
            assert_eq!(header(&source(bad)).len(), 1, "{bad:?}");
        }
        assert_eq!(header(&source("//! One disk: every request from\n//! arrival to reply.\n")), []);
    }

    #[test]
    fn a_name_that_fits_anything_is_found() {
        for bad in ["blockd/src/util.rs", "blockd/src/helpers/x.rs", "common/src/lib.rs"] {
            assert_eq!(empty_name(&Source::new(bad, "")).len(), 1, "{bad}");
        }
        assert_eq!(empty_name(&source("")), []);
    }

    #[test]
    fn a_file_over_the_limit_is_found_and_an_exception_may_only_shrink() {
        let long = source(&"fn f() {}\n".repeat(550));
        let verdict = |allowed| {
            let exceptions = [("blockd/src/volume.rs", allowed)];
            file_size(&long, &exceptions).first().map(|finding| finding.what.clone())
        };
        assert!(file_size(&long, &[])[0].what.contains("550 lines; the limit is 500"));
        assert!(verdict(549).unwrap().contains("it may only shrink"));
        assert_eq!(verdict(550), None);
        assert!(verdict(600).unwrap().contains("write 550 for 600"));
        let short = source("fn f() {}\n");
        assert!(file_size(&short, &[("blockd/src/volume.rs", 550)])[0].what.contains("needs no exception"));
    }

    #[test]
    fn unit_tests_do_not_count() {
        let text = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "// a test\n".repeat(600));
        assert_eq!(file_size(&source(&text), &[]), []);
    }

    #[test]
    fn a_function_over_the_limit_is_found_with_its_first_line() {
        let text = format!("\nimpl A {{\n    fn long() {{\n{}    }}\n}}\n", "        g();\n".repeat(69));
        let found = function_size(&source(&text), &[]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 3);
        assert!(found[0].what.contains("`long` of 71 lines"), "{}", found[0].what);
        assert_eq!(function_size(&source(&text), &[("blockd/src/volume.rs::long", 71)]), []);
    }

    #[test]
    fn functions_are_told_from_declarations_and_types() {
        let code = "trait T { fn declared(&self, x: [u8; 2]) -> u8; fn given(&self) -> u8 { 1 } }\n\
                    struct S { f: fn(u8) -> u8, g: u8 }\n\
                    fn outer<A, B>(f: fn(u8)) -> impl Fn() where A: Sized, B: Sized {\n    fn inner() {}\n    f\n}\n";
        let names: Vec<_> =
            functions(code).into_iter().map(|function| (function.name, function.lines)).collect();
        let expected = [("given", 1), ("outer", 4), ("inner", 1)];
        assert_eq!(names, expected.map(|(name, lines)| (name.to_owned(), lines)));
    }

    #[test]
    fn an_exception_for_nothing_is_found() {
        let sources = [source("fn f() {}\n")];
        let exceptions = [
            ("blockd/src/volume.rs", 1),
            ("blockd/src/volume.rs::f", 1),
            ("blockd/src/volume.rs::g", 1),
            ("x.rs", 1),
        ];
        assert_eq!(stale_exceptions(&sources, &exceptions).len(), 2);
    }
}
