//! Each course of the benchmark of moves, in small: the smallest guest is moved by us, by QEMU, and by QEMU with multifd.
//! Its figures are for `make bench`; that it runs, and what it leaves, is looked at here.

use tests::bench::record::Part;
use tests::bench::trial::Trial;
use tests::require;
use tests::requires;

pub fn the_course_lan100_is_measured_from_end_to_end_in_small() {
    check("lan100");
}

pub fn the_course_wan20_is_measured_from_end_to_end_in_small() {
    check("wan20");
}

pub fn the_course_bradford_is_measured_from_end_to_end_in_small() {
    check("bradford");
}

fn check(course: &str) {
    require!(requires::root());
    require!(requires::programs(&["qemu-system-x86_64", "nft", "qemu-nbd"]));
    let trial = require!(Trial::run(env!("CARGO_BIN_EXE_bench"), &["--only", "moves", "--course", course]));
    let records = trial.records();
    assert_eq!((records.0.len(), records.courses(Part::Moves)), (1, vec![course]));
    let sides = ["QEMU, multifd zstd", "QEMU", "ours"];
    let metrics = [
        "bytes on the wire",
        "downtime",
        "longest gap of the client",
        "lost lines, broken sessions",
        "total",
    ];
    let wanted =
        sides.iter().flat_map(|who| metrics.iter().map(move |name| format!("{course}: {who}: {name}")));
    assert_eq!(trial.metrics().into_iter().collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
    for who in sides {
        assert!(records.0[0].notes.contains_key(who), "where the time went: {:?}", records.0[0].notes);
        let bytes = records.series(Part::Moves, course, who, "bytes on the wire");
        assert!(bytes[0] > 1.0, "{who} moved {bytes:?} MB");
    }
    let tables = trial.tables();
    for title in [format!("### Moving a guest, {course} ("), format!("### Ours over the peer's, {course}\n")]
    {
        assert!(tables.contains(&title), "{tables}");
    }
    assert!(!tables.contains("not measured"), "{tables}");
    trial.check_that_nothing_is_measured_twice();
}
