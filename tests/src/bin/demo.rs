//! `make demo`: see `tests::demo`. Exit status: 0 it moved and nothing was violated, 1 otherwise, 2 the command line.

use std::process::ExitCode;

use clap::Parser;
use tests::demo::{self, wish::Wish};
use tests::requires;

fn main() -> ExitCode {
    let wish = Wish::parse();
    if let Err(why) = wish.check() {
        eprintln!("demo: {why}");
        return ExitCode::from(2);
    }
    if requires::root().is_err() {
        eprintln!("demo: needs root for its network namespaces; run: sudo -E env \"PATH=$PATH\" make demo");
        return ExitCode::FAILURE;
    }
    match demo::run(&wish) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(missing) => {
            eprintln!("demo: {missing}");
            ExitCode::FAILURE
        }
    }
}
