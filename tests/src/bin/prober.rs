//! The client's eyes in the lab: see `tests::prober`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match tests::prober::program::main(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("prober: {why}");
            ExitCode::FAILURE
        }
    }
}
