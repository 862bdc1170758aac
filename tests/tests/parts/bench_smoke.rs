//! Each part of the benchmark runs, in small: its figures are for `make bench`, but a broken one is noticed here. The
//! part that moves guests is in `moves/bench.rs`.

use tests::bench::record::{Part, Records};
use tests::bench::trial::{Said, Trial};
use tests::require;
use tests::requires;

const BENCH: &str = env!("CARGO_BIN_EXE_bench");

/// How many records there are of each course, in the order in which they were made.
fn counts(records: &Records, part: Part) -> Vec<(&str, usize)> {
    records.courses(part).into_iter().map(|course| (course, records.of(part, course).count())).collect()
}

/// Rows of tables that hold figures: those without head and rule.
fn rows(tables: &str) -> usize {
    tables.lines().filter(|line| line.starts_with("| ")).count() - tables.matches("\n### ").count()
}

#[test]
fn the_comparison_is_killed_and_goes_on_and_tells_what_has_become_slower() {
    require!(requires::programs(&["qemu-nbd", "nbdkit", "qemu-img"]));
    let trial = Trial::new(BENCH, &["--only", "comparison"]);
    trial.run_until_the_first_record();
    let first = trial.records().0[0].clone();
    let Said { text, code } = trial.again(&[]);
    assert_eq!(code, Some(0), "{text}");
    let records = trial.records();
    assert_eq!(records.0[0], first, "what was recorded before it was killed is kept");
    let found = counts(&records, Part::Comparison);
    assert_eq!(
        found.iter().map(|(_, count)| *count).collect::<Vec<_>>(),
        [[3; 10].as_slice(), &[2; 4]].concat()
    );
    // Four sides with two figures each, then three with one.
    let figures: Vec<usize> = records.0.iter().map(|record| record.figures.len()).collect();
    assert_eq!(figures, [[8; 30].as_slice(), &[3; 8]].concat());
    let tables = trial.tables();
    for title in ["### Wall time", "### CPU time of the server", "### Second opinion"] {
        assert!(tables.contains(title), "{tables}");
    }
    assert_eq!((rows(&tables), tables.matches("4 KiB random").count()), (24, 12), "{tables}");
    assert!(!tables.contains("not measured"), "{tables}");
    trial.check_that_nothing_is_measured_twice();

    let better = trial.better_by(1000.0);
    let Said { text, code } = trial.again(&["--against", &better.display().to_string()]);
    assert_eq!(code, Some(3), "{text}");
    // In small, a load may cost no CPU time that the kernel counts: that one is not slower.
    assert!(text.contains("SLOWER: ") && text.contains(" of our figures (0 faster, "), "{text}");
    assert!(text.contains("\n  comparison, 4 KiB random read, depth 1, ours, rate, requests/s: "), "{text}");
}

#[test]
fn the_costs_are_measured_from_end_to_end_in_small() {
    let trial = require!(Trial::run(BENCH, &["--only", "costs"]));
    let records = trial.records();
    let mut wanted =
        vec![("recording", 3), ("stalled replica", 3), ("stalled replica, slow disk", 3), ("memory", 1)];
    let slow_disk = ["nbdkit", "nbdfuse", "losetup", "mkfs.ext4"];
    if requires::programs(&slow_disk).and_then(|()| requires::root()).is_err() {
        wanted.remove(2);
    }
    assert_eq!(counts(&records, Part::Costs), wanted);
    assert!(trial.metrics().contains("recording: ours: CPU time of a write, recording"));
    assert!(trial.metrics().contains("memory: ours: resident memory"));
    let tables = trial.tables();
    assert_eq!(rows(&tables), 6, "{tables}");
    // The stream is in the same table, and was not asked for.
    assert_eq!(tables.matches("not measured").count(), 2 + (4 - wanted.len()), "{tables}");
    trial.check_that_nothing_is_measured_twice();
}

#[test]
fn the_stream_is_measured_in_small_and_an_interrupted_record_again() {
    let trial = require!(Trial::run(BENCH, &["--only", "stream"]));
    assert_eq!(counts(&trial.records(), Part::Stream), [("stream of one core", 3), ("first copy", 3)]);
    let wanted = [
        "first copy: ours: disk bytes taken",
        "stream of one core: ours: disk bytes for a byte sent",
        "stream of one core: ours: disk bytes taken",
        "stream of one core: zstd -1 alone: disk bytes taken",
    ];
    assert_eq!(trial.metrics().iter().map(String::as_str).collect::<Vec<_>>(), wanted);
    let whole = trial.records();
    trial.tear_last_record();
    let Said { text, code } = trial.again(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 pieces measured, 5 were recorded already"), "{text}");
    assert_eq!(trial.records().0[..5], whole.0[..5]);
    trial.check_that_nothing_is_measured_twice();
}

#[test]
fn the_link_is_measured_from_end_to_end_in_small() {
    require!(requires::program("iperf3"));
    require!(requires::root());
    let trial = require!(Trial::run(BENCH, &["--only", "link"]));
    let records = trial.records();
    let found = counts(&records, Part::Link);
    // Two ways, each by one and by eight connections; and cut, new bandwidths, loopback.
    assert_eq!((found.len(), records.0.len()), (7, 7), "{found:?}");
    for wanted in [
        "200 Mbit/s, 50 ms, 0.1 % lost: ours: goodput",
        "200 Mbit/s, 50 ms, 0.1 % lost: iperf3 with BBR: goodput",
        "150 Mbit/s, 300 ms, 1 % lost, 8 connections with cubic: ours: goodput",
        "cut of 1 s: ours: bytes sent again",
        "new bandwidths: ours: time until a new bandwidth is kept, up",
        "loopback: ours: rate",
        "loopback: plain TCP: rate",
    ] {
        assert!(trial.metrics().contains(wanted), "{:?}", trial.metrics());
    }
    let tables = trial.tables();
    assert_eq!((rows(&tables), tables.contains("not measured")), (7, false), "{tables}");
    trial.check_that_nothing_is_measured_twice();
}

#[test]
fn a_piece_that_takes_too_long_is_given_up_recorded_and_not_tried_again() {
    let trial = Trial::new(BENCH, &["--only", "stream"]);
    let Said { text, code } = trial.again(&["--limit", "0"]);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("stream of one core: pair 1 took more than 0 minutes and is given up"), "{text}");
    let Said { text, code } = trial.again(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("5 pieces measured, 1 were recorded already"), "{text}");
    let tables = trial.tables();
    assert!(tables.contains("* stream of one core: pair 1 was given up after 0 minutes\n"), "{tables}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_measured() {
    let trial = Trial::new(BENCH, &["--only", "comparison"]);
    let Said { text, code } = trial.again(&["--against", "/nonexistent/results.jsonl"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("cannot read /nonexistent/results.jsonl"), "{text}");
    assert!(!trial.file().exists());
}
