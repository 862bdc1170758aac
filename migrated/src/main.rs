//! The `migrated` program: reads the command line and hands over.

mod cli;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
