//! A whole start of the benchmark: what was asked for is measured, shown, written and compared.

use std::fmt;

use crate::binaries::is_release;
use crate::requires::Missing;

use super::against::{Comparison, compare};
use super::comparison::{self, Effort};
use super::record::{Part, Records};
use super::report::{self, Block, Table};
use super::results::Results;
use super::session::Session;
use super::wish::Wish;
use super::{costs, link, machine, moves, stream};

/// Why nothing came of it.
#[derive(Debug)]
pub enum Trouble {
    /// The machine lacks something.
    Missing(Missing),
    /// What was asked for makes no sense, or a file is none of ours.
    Wrong(String),
}

impl From<Missing> for Trouble {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Missing(missing) => write!(f, "cannot measure: {missing}"),
            Trouble::Wrong(why) => f.write_str(why),
        }
    }
}

/// Do it all; gives how many of our figures are slower than those that they were compared with.
pub fn run(wish: &Wish) -> Result<usize, Trouble> {
    if !wish.quick && !is_release() {
        let why = "this is not what is shipped, so its figures mean nothing: use `make bench`, or --quick";
        return Err(Trouble::Wrong(why.to_owned()));
    }
    // Read before the measurement: it may be the very file that is written.
    let before = wish.against.as_deref().map(Results::read).transpose().map_err(Trouble::Wrong)?;
    let results = wish.records().as_deref().map_or_else(|| Ok(Results::nowhere()), Results::open);
    let mut session =
        Session::new(results.map_err(Trouble::Wrong)?, machine::stamp()?, wish.limit, wish.anew);
    let parts = wish.parts();
    for part in &parts {
        measure(&mut session, wish, *part)?;
        tell(&session, wish, *part);
    }
    let (measured, there) = session.counts();
    println!("{measured} pieces measured, {there} were recorded already");
    if measured == 0 {
        println!("--anew measures them again");
    }
    let Some(before) = before else { return Ok(0) };
    let comparison = compared(&before, &session, &parts);
    println!("{comparison}");
    Ok(comparison.slower())
}

fn compared(before: &Records, session: &Session, parts: &[Part]) -> Comparison {
    compare(&before.complete().of_parts(parts), &session.complete_of_asked())
}

fn efforts(wish: &Wish) -> (Effort, link::Effort) {
    if wish.quick { (Effort::QUICK, link::Effort::QUICK) } else { (Effort::FULL, link::Effort::FULL) }
}

fn measure(session: &mut Session, wish: &Wish, part: Part) -> Result<(), Missing> {
    let (effort, link_effort) = efforts(wish);
    match part {
        Part::Comparison => comparison::measure(session, effort),
        Part::Costs => costs::measure(session, effort),
        Part::Stream => stream::measure(session, effort),
        Part::Moves => wish.courses().iter().try_for_each(|course| moves::measure(session, course)),
        Part::Link => link::measure(session, link_effort),
    }
}

/// Show the tables of a part, and write them where they are kept.
fn tell(session: &Session, wish: &Wish, part: Part) {
    let mut records = session.complete(part);
    let (effort, link_effort) = efforts(wish);
    let (block, how, tables) = match part {
        Part::Comparison => {
            (Block::COMPARISON, comparison::how(effort), comparison::tables(&records, effort))
        }
        Part::Costs | Part::Stream => {
            // One table of both.
            let other = if part == Part::Costs { Part::Stream } else { Part::Costs };
            records.0.extend(session.complete(other).0);
            let mut table = Table::new("Recording and replica", "figure | wanted | measured | verdict");
            costs::rows(&records, &mut table);
            stream::rows(&records, &mut table);
            (Block::COSTS, costs::how(effort), vec![table])
        }
        Part::Moves => (Block::MOVES, moves::how(&records), moves::tables(&records, wish.quick)),
        Part::Link => {
            (Block::LINK, link::tables::how(link_effort), link::tables::tables(&records, link_effort))
        }
    };
    for table in &tables {
        println!("{table}");
    }
    if let Some(path) = wish.tables() {
        report::write(&path, block, &records, &how, &tables);
    }
}
