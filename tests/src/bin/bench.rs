//! `make bench`: measure, and write `bench/RESULTS.md`.
//!
//! ```text
//! bench [--quick] [--only comparison|costs] [--output FILE]
//! ```
//!
//! `--quick` only shows that everything runs: its figures mean nothing, and it writes nothing unless told
//! where to.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::bench::comparison::{self, Effort};
use tests::bench::costs;
use tests::bench::report::{self, Table};
use tests::bench::servers::Server;
use tests::lab::Lab;

struct Wanted {
    effort: Effort,
    comparison: bool,
    costs: bool,
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    let wanted = match parse(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("{why}\nusage: bench [--quick] [--only comparison|costs] [--output FILE]");
            return ExitCode::from(2);
        }
    };
    match Lab::with(&["qemu-nbd", "nbdkit", "qemu-img"]) {
        Ok(lab) => measure(&lab, &wanted),
        Err(missing) => {
            eprintln!("cannot measure: {missing}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/RESULTS.md");
    let mut wanted = Wanted { effort: Effort::FULL, comparison: true, costs: true, output: Some(results) };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => (wanted.effort, wanted.output) = (Effort::QUICK, None),
            "--only" => match words.next().as_deref() {
                Some("comparison") => wanted.costs = false,
                Some("costs") => wanted.comparison = false,
                other => return Err(format!("--only takes comparison or costs, not {other:?}")),
            },
            "--output" => wanted.output = Some(words.next().ok_or("--output needs a file")?.into()),
            other => return Err(format!("{other} is not known")),
        }
    }
    Ok(wanted)
}

fn measure(lab: &Lab, wanted: &Wanted) {
    let mut tables: Vec<Table> = Vec::new();
    if wanted.comparison {
        let servers = Server::all(lab, wanted.effort.image_bytes);
        tables.extend(comparison::run(&servers, wanted.effort));
        tables.push(comparison::second_opinion(&servers, wanted.effort));
    }
    if wanted.costs {
        tables.push(costs::run(lab, wanted.effort));
    }
    for table in &tables {
        println!("{table}");
    }
    if let Some(path) = &wanted.output {
        report::write(path, &how(wanted.effort), &tables);
    }
}

fn how(effort: Effort) -> String {
    format!(
        "Every figure is the median of {} interleaved pairs of runs, with the interval that holds it with 95 %. \
         Images of {} MiB, one a server, in the page cache; a sequential run moves {} MiB with four requests in \
         flight. The client is the same for all; \"no NBD\" is the client straight on the file, one request at a \
         time. CPU time is that of the server with all its threads (of the client for \"no NBD\").",
        effort.pairs,
        effort.image_bytes >> 20,
        effort.sequential_bytes >> 20,
    )
}
