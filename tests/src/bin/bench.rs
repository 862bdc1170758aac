//! `make bench`: see `tests::bench`, and `bench --help` for what can be asked for and for its exit status.

use std::process::ExitCode;

use clap::Parser;
use tests::bench::link::end;
use tests::bench::suite::{self, Trouble};
use tests::bench::wish::Wish;

/// Something of ours is slower than it was.
const SLOWER: u8 = 3;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("link-end", rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        // One end of a link, started by the measurement itself.
        end::main(rest);
        return ExitCode::SUCCESS;
    }
    match suite::run(&Wish::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(SLOWER),
        Err(trouble) => {
            eprintln!("bench: {trouble}");
            ExitCode::from(if matches!(trouble, Trouble::Missing(_)) { 1 } else { 2 })
        }
    }
}
