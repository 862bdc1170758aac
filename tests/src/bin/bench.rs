//! `make bench`: measure, and write `bench/RESULTS.md`.
//!
//! ```text
//! bench [--quick] [--only comparison|costs|moves|link] [--course lan100|wan20|bradford] [--pairs N] [--output FILE]
//! ```
//!
//! `--course` and `--pairs` are about moves: which of them, and how often.
//! `--quick` only shows that everything runs: its figures mean nothing, and it writes nothing unless told
//! where to.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tests::bench::comparison::{self, Effort};
use tests::bench::costs;
use tests::bench::link::{self, end};
use tests::bench::moves::{self, Course};
use tests::bench::report::{self, Part, Table};
use tests::bench::servers::Server;
use tests::lab::Lab;
use tests::requires::Missing;

const USAGE: &str =
    "usage: bench [--quick] [--only comparison|costs|moves|link] [--course NAME] [--pairs N] [--output FILE]";

struct Wanted {
    effort: Effort,
    comparison: bool,
    costs: bool,
    courses: Vec<Course>,
    link: bool,
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("link-end", rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        // One end of a link, started by the measurement itself.
        end::main(rest);
        return ExitCode::SUCCESS;
    }
    let wanted = match parse(words.into_iter()) {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match data_plane(&wanted).and_then(|()| moves(&wanted)).and_then(|()| the_link(&wanted)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(missing) => {
            eprintln!("cannot measure: {missing}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/RESULTS.md");
    let mut wanted = Wanted {
        effort: Effort::FULL,
        comparison: true,
        costs: true,
        courses: vec![Course::lan100(), Course::wan20()],
        link: true,
        output: Some(results),
    };
    let (mut named, mut pairs) = (Vec::new(), None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => {
                (wanted.effort, wanted.output) = (Effort::QUICK, None);
                if !wanted.courses.is_empty() {
                    wanted.courses = vec![Course::quick()];
                }
            }
            "--only" => {
                let part = words.next().unwrap_or_default();
                if !["comparison", "costs", "moves", "link"].contains(&part.as_str()) {
                    return Err(format!("--only takes comparison, costs, moves or link, not {part:?}"));
                }
                (wanted.comparison, wanted.costs) = (part == "comparison", part == "costs");
                wanted.link = part == "link";
                if part != "moves" {
                    wanted.courses.clear();
                }
            }
            "--course" => {
                let name = words.next().ok_or("--course needs a name")?;
                named.push(Course::named(&name).ok_or(format!("there is no course {name:?}"))?);
            }
            "--pairs" => {
                let count = words.next().and_then(|word| word.parse().ok()).filter(|count| *count > 0);
                pairs = Some(count.ok_or("--pairs needs a number")?);
            }
            "--output" => wanted.output = Some(words.next().ok_or("--output needs a file")?.into()),
            other => return Err(format!("{other} is not known")),
        }
    }
    if !named.is_empty() {
        wanted.courses = named;
    }
    for course in &mut wanted.courses {
        course.pairs = pairs.unwrap_or(course.pairs);
    }
    Ok(wanted)
}

fn data_plane(wanted: &Wanted) -> Result<(), Missing> {
    let mut tables: Vec<Table> = Vec::new();
    if !wanted.comparison && !wanted.costs {
        return Ok(());
    }
    let lab = Lab::with(&["qemu-nbd", "nbdkit", "qemu-img"])?;
    if wanted.comparison {
        let servers = Server::all(&lab, wanted.effort.image_bytes);
        tables.extend(comparison::run(&servers, wanted.effort));
        tables.push(comparison::second_opinion(&servers, wanted.effort));
    }
    if wanted.costs {
        tables.push(costs::run(&lab, wanted.effort));
    }
    tell(wanted, Part::DATA_PLANE, &how(wanted.effort), &tables);
    Ok(())
}

fn moves(wanted: &Wanted) -> Result<(), Missing> {
    let mut tables: Vec<Table> = Vec::new();
    for course in &wanted.courses {
        tables.extend(moves::run(course)?);
    }
    if !tables.is_empty() {
        tell(wanted, Part::MOVES, &moves::how(&wanted.courses), &tables);
    }
    Ok(())
}

fn the_link(wanted: &Wanted) -> Result<(), Missing> {
    if wanted.link {
        let effort = match wanted.effort.pairs == Effort::QUICK.pairs {
            true => link::Effort::QUICK,
            false => link::Effort::FULL,
        };
        tell(wanted, Part::LINK, &link::how(effort), &link::run(effort)?);
    }
    Ok(())
}

fn tell(wanted: &Wanted, part: Part, how: &str, tables: &[Table]) {
    for table in tables {
        println!("{table}");
    }
    if let Some(path) = &wanted.output {
        report::write(path, part, how, tables);
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
