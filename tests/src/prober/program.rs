//! What the program `prober` does; also for a program that carries it inside and starts itself.
//!
//! ```text
//! prober run WATCH              watch until the standard input says `finish` or ends; `mark NAME` notes a moment
//! prober command ADDRESS TEXT   one command to the guest's programs; prints the answer
//! ```

use std::io::{self, BufRead, Write};
use std::thread;
use std::time::Duration;

use super::record::Mark;
use super::sessions::{self, Shared};
use super::{Progress, Said, Watch};
use crate::guest_kit::service;

/// Time between two lines of progress.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// Do what `words` (without the program's name) say.
pub fn main(words: &[String]) -> Result<(), String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["run", watch] => run(&serde_json::from_str(watch).map_err(|error| error.to_string())?),
        ["command", address, command] => {
            let address = address.parse().map_err(|_| format!("{address} is not an address"))?;
            let answer = service::command(address, command).map_err(|error| error.to_string())?;
            print!("{answer}");
            Ok(())
        }
        _ => Err("usage: prober run WATCH | prober command ADDRESS COMMAND".to_owned()),
    }
}

fn run(watch: &Watch) -> Result<(), String> {
    let shared = Shared::begin(watch.disks);
    let (address, last_answer) = (watch.address, Duration::from_millis(watch.last_answer_ms));
    thread::scope(|scope| {
        let shared = &shared;
        let (lines, datagrams) = ((watch.lines_per_s, watch.line_bytes), watch.datagrams_per_s);
        let mut sessions = Vec::new();
        if lines.0 > 0 {
            sessions.push(scope.spawn(move || sessions::echo(shared, address, lines, last_answer)));
        }
        if datagrams > 0 {
            sessions.push(scope.spawn(move || {
                sessions::datagrams(shared, address, datagrams, last_answer).unwrap_or_else(|error| {
                    eprintln!("prober: no datagrams: {error}");
                });
            }));
        }
        for disk in 0..watch.disks {
            sessions.push(scope.spawn(move || sessions::numbers(shared, address, disk)));
        }
        let orders = scope.spawn(move || obey(shared));
        while !orders.is_finished() {
            tell(&Said::Progress(progress(shared)));
            thread::park_timeout(TELL_EVERY);
        }
        for session in sessions {
            session.join().map_err(|_| "a session of the prober has panicked".to_owned())?;
        }
        Ok::<(), String>(())
    })?;
    let new_connection_us = sessions::once_more(&shared, address).ok();
    shared.record().new_connection_us = new_connection_us;
    let record = shared.record().clone();
    tell(&Said::Record(Box::new(record)));
    Ok(())
}

/// Take orders until the last one.
fn obey(shared: &Shared) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("mark", name)) => {
                let mark = Mark { name: name.to_owned(), at_us: shared.now_us() };
                shared.record().marks.push(mark);
            }
            _ if line == "finish" => break,
            _ => eprintln!("prober: {line:?} is no order"),
        }
    }
    shared.finish();
}

fn progress(shared: &Shared) -> Progress {
    let record = shared.record();
    let answered = record.lines.iter().filter(|line| line.answered_us.is_some()).count() as u64;
    Progress { answered, acknowledged: record.disks.iter().map(|disk| disk.highest()).collect() }
}

fn tell(said: &Said) {
    let line = serde_json::to_string(said).expect("plain values");
    // Whoever started us may be gone; the input ends then too.
    let _ = writeln!(io::stdout(), "{line}");
}
