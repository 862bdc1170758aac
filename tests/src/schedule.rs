//! Runs tests that keep a processor busy for long: each in a process of its own, in the order in which they are listed,
//! so that the longest begin first and no processor is idle at the end.
//!
//! ```text
//! list ─► libtest-mimic (words of a test program: a filter, --ignored, --test-threads …) ─► this program once more ─► log
//! ```
//!
//! What a test prints is in `<target>/moves/NAME.log`, and after its failure also below the list. A test that is killed
//! takes no other one with it.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::binaries::{are_built, build, target_dir};

/// Names the one test that a process is started for.
const ONE: &str = "SCHEDULED_TEST";

/// A test.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// `module::function`.
    pub name: &'static str,
    /// What it does; it panics if something is wrong.
    pub run: fn(),
    /// Only with `--ignored` or `--include-ignored`.
    pub is_soak: bool,
}

/// The main function of a test program with these tests.
pub fn main(cases: &[Case]) -> ExitCode {
    if let Some(name) = env::var_os(ONE) {
        let case = cases.iter().find(|case| OsStr::new(case.name) == name).expect("a test of this list");
        (case.run)();
        return ExitCode::SUCCESS;
    }
    build().expect("the programs under test");
    let logs = target_dir().join("moves");
    fs::create_dir_all(&logs).expect("make a folder for the logs of tests");
    let trial = |case: &Case| {
        let (name, log) = (case.name, logs.join(format!("{}.log", case.name.replace("::", "."))));
        Trial::test(name, move || run_apart(name, &log)).with_ignored_flag(case.is_soak)
    };
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert_with(at_a_time);
    libtest_mimic::run(&arguments, cases.iter().map(trial).collect()).exit_code()
}

/// One more than there are processors: a guest that moves waits for a link as well.
fn at_a_time() -> usize {
    thread::available_parallelism().map_or(1, usize::from) + 1
}

fn run_apart(name: &str, log: &Path) -> Result<(), Failed> {
    let file = File::create(log)?;
    let mut command = Command::new(env::current_exe()?);
    command.env(ONE, name).envs([are_built()]).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let begun = Instant::now();
    let status = command.status()?;
    let took_s = begun.elapsed().as_secs();
    println!("{took_s:5} s  {name}");
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    Err(format!("{status} after {took_s} s\n{said}").into())
}

/// Tests as a list: `cases![module::function, …]`, those that only `make soak` runs after the word `soak:`.
#[macro_export]
macro_rules! cases {
    ($($module:ident :: $test:ident),* $(,)?; soak: $($long:ident :: $soak:ident),* $(,)?) => {
        [
            $($crate::schedule::Case {
                name: concat!(stringify!($module), "::", stringify!($test)),
                run: $module::$test,
                is_soak: false,
            },)*
            $($crate::schedule::Case {
                name: concat!(stringify!($long), "::", stringify!($soak)),
                run: $long::$soak,
                is_soak: true,
            },)*
        ]
    };
}
