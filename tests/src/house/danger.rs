//! What needs a reason or is not done at all: `unsafe`, globs, sleeping tests, silent skips, and a
//! clock or a socket in pure code.

use super::paths::{self, words};
use super::{Finding, Source};

/// The only modules with `unsafe`, each with what is below it.
const UNSAFE_MODULES: [&str; 9] = [
    "blockd/src/buffer",
    "blockd/src/io/ring",
    "blockd/src/io/sidecar_file",
    "migrated/src/io/tls/socket",
    "blockd/src/io/file_store",
    "blockd/src/io/listen",
    "migrated/src/io/process",
    "migrated/src/io/tap/ioctl",
    "tunnel/src/io/announce",
];

/// Lines above an `unsafe` in which its reason is looked for.
const REASON_LINES: usize = 8;

/// `unsafe` stands in few modules, and each one says why it is sound.
pub fn unsafe_code(source: &Source) -> Vec<Finding> {
    let stem = source.path.trim_end_matches(".rs");
    let allowed = UNSAFE_MODULES
        .iter()
        .any(|module| stem.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    let mut found = Vec::new();
    for (line, code) in source.code_lines() {
        if !words(code).any(|(_, word)| word == "unsafe") {
            continue;
        }
        if !allowed {
            let what = format!(
                "unsafe outside of {}; use a safe wrapper, or move it there",
                UNSAFE_MODULES.join(", ")
            );
            found.push(Finding::new(source, line, what));
        } else if !has_reason(source, line) {
            let what = "unsafe without a reason; write `// SAFETY:` (`# Safety` for a function) above it";
            found.push(Finding::new(source, line, what));
        }
    }
    found
}

/// True when the statement of `line`, or the comment above it, holds the reason.
fn has_reason(source: &Source, line: usize) -> bool {
    let text: Vec<&str> = source.text.lines().collect();
    let code: Vec<&str> = source.code.lines().collect();
    let is_reason = |at: usize| text[at].contains("SAFETY:") || text[at].contains("# Safety");
    let own = line - 1;
    let above = (0..own).rev().take(REASON_LINES);
    is_reason(own)
        || above
            // Upwards to the end of the statement before.
            .take_while(|at| !code[*at].trim_end().ends_with([';', '{', '}']) && !text[*at].trim().is_empty())
            .any(is_reason)
}

/// No glob imports: a reader sees where a name comes from. Tests may take in all of what they
/// test (`super::*`) and a prelude that is made for it.
pub fn globs(source: &Source) -> Vec<Finding> {
    let first_test_line = if source.is_test() { 0 } else { source.product_lines() };
    let is_usual =
        |path: &[String]| path == ["super", "*"] || path.ends_with(&["prelude", "*"].map(str::to_owned));
    paths::in_use_items(&source.code)
        .iter()
        .filter(|named| named.name == "*")
        .filter(|named| source.line_at(named.offset) <= first_test_line || !is_usual(&named.segments))
        .map(|named| {
            let what = format!("glob import `{}`; name what is used", named.segments.join("::"));
            Finding::new(source, source.line_at(named.offset), what)
        })
        .collect()
}

/// The only modules that read the wall clock, of which people set the hands: what it says is written where people read
/// it, and into DNS's signatures. Everything else goes by clocks that only go forward (M9).
const WALL_CLOCK_MODULES: [&str; 2] = ["migrated/src/io/journal_file.rs", "tunnel/src/io/dns.rs"];

/// Nothing is decided by the wall clock.
pub fn wall_clock(source: &Source) -> Vec<Finding> {
    if source.path.starts_with("tests/") || WALL_CLOCK_MODULES.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let reads = |code: &str| {
        words(code).any(|(_, word)| matches!(word, "SystemTime" | "UNIX_EPOCH"))
            || (code.contains("unix_ms()")
                && !(code.contains("unix_ms: ")
                    || code.contains("started_unix_s: ")
                    || code.contains("to_report(")))
    };
    let found = source.code_lines().filter(|(_, code)| reads(code));
    let what = "the wall clock; use a clock that only goes forward, or write the time into a record";
    found.map(|(line, _)| Finding::new(source, line, what)).collect()
}

/// Tests do not sleep: they wait for what they wait for, or move a clock of their own.
pub fn sleeping_tests(source: &Source) -> Vec<Finding> {
    let first = match source.path.starts_with("tests/") || source.is_test() {
        true => 0,
        false => source.product_lines(),
    };
    source
        .code_lines()
        .skip(first)
        .filter(|(_, code)| words(code).any(|(at, word)| word == "sleep" && code[at + 5..].starts_with('(')))
        .map(|(line, _)| {
            let what = "sleep in a test; wait for the event itself with a deadline, or pass a made-up `now`";
            Finding::new(source, line, what)
        })
        .collect()
}

/// A test that is left out says why.
pub fn ignored_without_reason(source: &Source) -> Vec<Finding> {
    source
        .code_lines()
        .filter(|(_, code)| code.replace(' ', "").contains("#[ignore]"))
        .map(|(line, _)| Finding::new(source, line, "ignored without a reason; write #[ignore = \"why\"]"))
        .collect()
}

/// Only `io`, programs and tests (also unit tests) let themselves use clocks, sockets, files, processes, threads.
pub fn let_into_the_world(source: &Source) -> Vec<Finding> {
    let inside = source.path.split_once("/src/").map_or("", |(_, inside)| inside);
    let is_shell = inside == "io.rs" || inside.starts_with("io/") || inside == "main.rs";
    if is_shell || source.path.starts_with("tests/") || source.is_test() {
        return Vec::new();
    }
    source
        .code_lines()
        .take(source.product_lines())
        .filter(|(_, code)| code.contains("clippy::disallowed_methods"))
        .map(|(line, _)| {
            let what =
                "clocks, sockets, files, processes and threads stay under io/: take `now` or a value instead";
            Finding::new(source, line, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{globs, ignored_without_reason, let_into_the_world, sleeping_tests, unsafe_code, wall_clock};
    use crate::house::{Finding, Source};

    fn lines(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Source::new(path, text)).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn unsafe_in_another_file_is_found_even_with_a_reason() {
        let text = "// SAFETY: it is fine\nlet x = unsafe { f() };\n";
        assert_eq!(lines(unsafe_code, "blockd/src/volume.rs", text), [2]);
        assert_eq!(lines(unsafe_code, "blockd/src/buffers.rs", text), [2]);
        assert_eq!(lines(unsafe_code, "blockd/src/buffer.rs", text), [0; 0]);
        assert_eq!(lines(unsafe_code, "blockd/src/io/ring/queue.rs", text), [0; 0]);
    }

    #[test]
    fn unsafe_without_a_reason_of_its_own_is_found() {
        let path = "blockd/src/io/ring.rs";
        assert_eq!(lines(unsafe_code, path, "fn f() {\n    unsafe { g() }\n}\n"), [2]);
        let one_for_two = "// SAFETY: yes\nlet a = unsafe { g() };\nlet b = unsafe { g() };\n";
        assert_eq!(lines(unsafe_code, path, one_for_two), [3]);
        let of_a_statement = "// SAFETY: yes,\n// surely.\n#[inline]\nlet a =\n    unsafe { g() };\n";
        assert_eq!(lines(unsafe_code, path, of_a_statement), [0; 0]);
        let of_a_function = "/// # Safety\n/// Once only.\nunsafe fn f() {}\n";
        assert_eq!(lines(unsafe_code, path, of_a_function), [0; 0]);
        assert_eq!(lines(unsafe_code, path, "// unsafe\nlet unsafe_count = \"unsafe\";\n"), [0; 0]);
    }

    #[test]
    fn a_glob_is_found_in_any_group_and_in_tests_but_for_the_usual_ones() {
        let text = "use crate::{a, b::*};\nuse super::*;\nlet c = a * b;\n#[cfg(test)]\nmod tests {\n    \
                    use super::*;\n    use x::prelude::*;\n    use crate::extent::*;\n}\n";
        assert_eq!(lines(globs, "blockd/src/volume.rs", text), [1, 2, 8]);
        assert_eq!(lines(globs, "blockd/src/pending/tests.rs", "use super::*;\nuse crate::a::*;\n"), [2]);
    }

    #[test]
    fn a_look_at_the_wall_clock_is_found_where_it_is_not_only_written_down() {
        let text =
            "use std::time::SystemTime;\nlet late = unix_ms() > lease;\nRecord { unix_ms: unix_ms() }\n";
        assert_eq!(lines(wall_clock, "migrated/src/io/destination.rs", text), [1, 2]);
        assert_eq!(lines(wall_clock, "migrated/src/io/journal_file.rs", text), [0; 0]);
    }

    #[test]
    fn a_sleeping_test_is_found() {
        let text = "fn f() { sleep(x); }\n#[cfg(test)]\nmod tests {\n    fn t() { thread::sleep(y); }\n}\n";
        assert_eq!(lines(sleeping_tests, "blockd/src/io/pool.rs", text), [4]);
        assert_eq!(lines(sleeping_tests, "tests/src/guest.rs", text), [1, 4]);
        assert_eq!(lines(sleeping_tests, "tests/tests/x.rs", "// sleep(1)\nlet sleep = asleep();\n"), [0; 0]);
    }

    #[test]
    fn an_ignored_test_without_a_reason_is_found() {
        let text = "#[ignore]\nfn a() {}\n#[ignore = \"soak: an hour\"]\nfn b() {}\n";
        assert_eq!(lines(ignored_without_reason, "tests/tests/x.rs", text), [1]);
    }

    #[test]
    fn pure_code_that_lets_itself_use_the_world_is_found() {
        let text = "//! Pure.\n#![allow(clippy::disallowed_methods)]\n";
        assert_eq!(lines(let_into_the_world, "blockd/src/volume.rs", text), [2]);
        assert_eq!(lines(let_into_the_world, "blockd/src/io.rs", text), [0; 0]);
        assert_eq!(lines(let_into_the_world, "blockd/src/main.rs", text), [0; 0]);
        assert_eq!(lines(let_into_the_world, "tests/src/lab.rs", text), [0; 0]);
    }
}
