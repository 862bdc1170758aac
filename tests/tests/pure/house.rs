//! The house rules, held against the whole workspace. What each rule is, and a proof that it can
//! fire, stands in `tests/src/house/`.

use std::fs;
use std::path::{Path, PathBuf};

use tests::house::shape::{self, Exception};
use tests::house::{Finding, Source, crates, danger, modules};

/// Files over the limit, with their lines before the unit tests. May only shrink.
const LONG_FILES: &[Exception] = &[];

/// Functions over the limit, as `file::name`, with their lines. May only shrink.
const LONG_FUNCTIONS: &[Exception] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in the workspace").to_owned()
}

fn crate_names() -> Vec<&'static str> {
    crates::MAY_IMPORT.iter().map(|(name, _)| *name).collect()
}

fn sources() -> Vec<Source> {
    let sources = Source::read_all(&root(), &crate_names()).expect("the sources can be read");
    assert!(sources.len() > 10, "only {} sources below {}", sources.len(), root().display());
    sources
}

#[track_caller]
fn assert_none(findings: Vec<Finding>) {
    let told: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(told.is_empty(), "{} found:\n{}", told.len(), told.join("\n"));
}

fn in_every_source(rule: impl Fn(&Source) -> Vec<Finding>) {
    assert_none(sources().iter().flat_map(rule).collect());
}

#[test]
fn crates_import_in_one_direction() {
    let manifest = |name: &str| fs::read_to_string(root().join(name)).expect("a manifest can be read");
    let members = crates::members(&manifest("Cargo.toml"));
    assert!(members.len() >= crates::MAY_IMPORT.len(), "the members were not understood: {members:?}");
    assert_none(
        members
            .iter()
            .flat_map(|name| crates::direction(name, &manifest(&format!("{name}/Cargo.toml"))))
            .collect(),
    );
}

#[test]
fn every_dependency_has_its_reason() {
    let page = fs::read_to_string(root().join("docs/dependencies.md")).expect("the page can be read");
    let manifest = |name: &str| fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a manifest");
    assert_none(
        crate_names()
            .into_iter()
            .flat_map(|name| crates::without_a_reason(name, &manifest(name), &page))
            .collect(),
    );
}

#[test]
fn modules_import_in_a_line() {
    let sources = sources();
    let of_crate = |name: &str| -> Vec<&Source> {
        sources.iter().filter(|source| source.path.starts_with(&format!("{name}/src/"))).collect()
    };
    assert_none(crate_names().iter().flat_map(|name| modules::circles(&of_crate(name))).collect());
}

#[test]
fn pure_code_does_not_reach_into_io() {
    in_every_source(modules::reach_into_io);
}

#[test]
fn only_the_shell_lets_itself_into_the_world() {
    in_every_source(danger::let_into_the_world);
}

#[test]
fn every_file_opens_with_what_it_is() {
    in_every_source(shape::header);
}

#[test]
fn every_module_has_a_name_that_says_something() {
    in_every_source(shape::empty_name);
}

#[test]
fn files_are_short() {
    in_every_source(|source| shape::file_size(source, LONG_FILES));
    assert_none(shape::stale_exceptions(&sources(), LONG_FILES));
}

#[test]
fn functions_are_short() {
    in_every_source(|source| shape::function_size(source, LONG_FUNCTIONS));
    assert_none(shape::stale_exceptions(&sources(), LONG_FUNCTIONS));
}

#[test]
fn unsafe_stands_in_few_files_and_says_why_it_is_sound() {
    in_every_source(danger::unsafe_code);
}

#[test]
fn nothing_is_imported_by_glob() {
    in_every_source(danger::globs);
}

#[test]
fn nothing_is_decided_by_the_wall_clock() {
    in_every_source(danger::wall_clock);
}

#[test]
fn no_test_sleeps() {
    in_every_source(danger::sleeping_tests);
}

#[test]
fn no_test_is_left_out_without_a_reason() {
    in_every_source(danger::ignored_without_reason);
}
