//! What the records of the link say, as tables.

use std::time::Duration;

use crate::bench::record::{OURS, Part, Records};
use crate::bench::report::{NOTHING, Table, at_least, at_most, figures};
use crate::bench::statistics::ratios;

use super::{
    AGAIN, CLEAR, CPU, DOWN, Effort, GOODPUT, IPERF, LIMITS, LONG_RATE_MBIT, LONG_ROUND_TRIP, LOOPBACK, RATE,
    RATE_MBIT, ROUND_TRIP, UP, cut_name, goodput_name, striped_name,
};

/// Under which conditions.
pub fn how(effort: Effort) -> String {
    format!(
        "One disk's channel, filled with one byte (the link does not compress), over a router with netem that loses \
         packets both ways; {} interleaved pairs of {} s, each judged by its second half. iperf3 sends one stream \
         with BBR through the same router. On loopback {} MB go through the link, and through the same session over \
         plain TCP. With few pairs the interval is simply the smallest and the largest.",
        effort.pairs,
        effort.seconds,
        4 * effort.bytes / 1_000_000,
    )
}

/// All of them.
pub fn tables(records: &Records, effort: Effort) -> Vec<Table> {
    vec![
        goodput(records, effort, RATE_MBIT, ROUND_TRIP),
        goodput(records, effort, LONG_RATE_MBIT, LONG_ROUND_TRIP),
        costs(records, effort),
    ]
}

fn series(records: &Records, course: &str, who: &str, metric: &str) -> Vec<f64> {
    records.series(Part::Link, course, who, metric)
}

fn goodput(records: &Records, effort: Effort, rate_mbit: u32, round_trip: Duration) -> Table {
    let mut table = Table::new(
        &format!("Goodput of the link, {rate_mbit} Mbit/s, {} ms there and back", round_trip.as_millis()),
        "loss each way | link, Mbit/s | iperf3 with BBR | ratio | wanted | verdict | 8 connections with cubic, Mbit/s",
    );
    for way in effort.ways.iter().copied().filter(|way| (way.0, way.1) == (rate_mbit, round_trip)) {
        let of = |who| series(records, &goodput_name(way), who, GOODPUT);
        let (ours, theirs) = (of(OURS), of(IPERF));
        let ratio = ratios(&ours, &theirs);
        let striped = series(records, &striped_name(way), OURS, GOODPUT);
        table.row(vec![
            format!("{} %", way.2),
            figures(&ours),
            figures(&theirs),
            figures(&ratio),
            "≥ 0.95".to_owned(),
            at_least(&ratio, 0.95),
            striped.last().map_or_else(|| NOTHING.to_owned(), |rate| format!("{rate:.1}")),
        ]);
    }
    table
}

fn costs(records: &Records, effort: Effort) -> Table {
    let mut table = Table::new("What else the link costs", "figure | wanted | measured | verdict");
    let again = series(records, &cut_name(effort), OURS, AGAIN);
    let product = f64::from(RATE_MBIT) / 8.0 * ROUND_TRIP.as_secs_f64();
    // The window is twice the product, which netem's queue may double.
    let window = 4.0 * product;
    let cut_s = effort.cut_s;
    table.row(vec![
        format!("bytes sent again after a cut of {cut_s} s, MB (a bandwidth-delay product is {product:.2})"),
        format!("≤ {window:.0}, one window"),
        figures(&again),
        at_most(&again, window),
    ]);
    for (metric, name) in [(DOWN, "down, 100 to 20"), (UP, "up, 20 to 100")] {
        let took = series(records, LIMITS, OURS, metric);
        let name = format!("seconds until a new bandwidth is kept within 10 %, {name} Mbit/s");
        table.row(vec![name, "≤ 2".to_owned(), figures(&took), at_most(&took, 2.0)]);
    }
    let (encrypted, clear) = (series(records, LOOPBACK, OURS, RATE), series(records, LOOPBACK, CLEAR, RATE));
    let ratio = ratios(&encrypted, &clear);
    let rates = format!("{} over {} MB/s", figures(&encrypted), figures(&clear));
    let name = format!("encrypted over clear on loopback ({rates})");
    table.row(vec![name, "≥ 0.7".to_owned(), figures(&ratio), at_least(&ratio, 0.7)]);
    let name = "CPU seconds for each GB through the link, both ends";
    let cpu = figures(&series(records, LOOPBACK, OURS, CPU));
    table.row(vec![name.to_owned(), NOTHING.to_owned(), cpu, NOTHING.to_owned()]);
    table
}
