//! Commands to the guest's programs, one a line, each with an answer of one line.
//!
//! ```text
//! writer [disk=a|b] [rate=N] [burst=N] [slots=N]   write from now on           ok disk=a acknowledged=17 …
//! writer [disk=a|b] stop | writer [disk=a|b] status
//! dirty [mib=N] [rate=N] [working=MIB]             dirty memory from now on    ok pages=4096 dirtied=0 …
//! dirty stop | dirty status
//! check                                            verify the memory           ok pages=4096 versions=123 | bad page=7 …
//! uptime                                           the guest's clock           ok us=… ticks=… longest_gap_us=…
//! network                                          its card and routes         ok mac=… bus=… address=… …
//! sync | poweroff | reboot                                                     ok
//! ```
//!
//! What is left out of a command stays as it was. Anything else is answered by `error` and why; not a shell.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::dirtier::{self, Dirtier};
use crate::network;
use crate::power;
use crate::writer::{self, Writer};

/// What commands go to.
pub struct Parts {
    /// The guest's clock.
    pub clock: Arc<Clock>,
    /// One for each disk.
    pub writers: Vec<Arc<Writer>>,
    /// The one of the memory.
    pub dirtier: Arc<Dirtier>,
}

/// Places of a writer that was never told.
const USUAL_SLOTS: u64 = 1024;

/// A client that is gone keeps no guest from ending.
const HANG_UP_LIMIT: Duration = Duration::from_secs(30);

/// Answer one client until it has no more commands.
pub fn answer(stream: &TcpStream, parts: &Parts) -> io::Result<()> {
    let mut answers = stream;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = execute(&words, parts).unwrap_or_else(|why| format!("error {line:?}: {why}"));
        answers.write_all(format!("{answer}\n").as_bytes())?;
        // Answered first, and heard: there is nobody left afterwards who would send a lost answer again.
        if let [how @ ("poweroff" | "reboot")] = words[..] {
            wait_for_hang_up(stream);
            power::end(how);
        }
    }
    Ok(())
}

/// Wait until the client, which has its answer then, hangs up.
fn wait_for_hang_up(mut stream: &TcpStream) {
    // However the wait ends, nobody waits for more.
    let _ =
        stream.set_read_timeout(Some(HANG_UP_LIMIT)).and_then(|()| io::copy(&mut stream, &mut io::sink()));
}

fn execute(words: &[&str], parts: &Parts) -> Result<String, String> {
    match words {
        ["writer", words @ ..] => write(words, parts),
        ["dirty", "stop"] => Ok(parts.dirtier.stop()),
        ["dirty", "status"] => Ok(parts.dirtier.describe()),
        ["dirty", settings @ ..] => dirty(settings, parts),
        ["check"] => Ok(parts.dirtier.check()),
        ["uptime"] => Ok(parts.clock.describe()),
        ["network"] => network::describe(),
        ["sync" | "poweroff" | "reboot"] => Ok(power::sync()),
        _ => Err("there is no such command".to_owned()),
    }
}

fn write(words: &[&str], parts: &Parts) -> Result<String, String> {
    let disk = words.iter().find_map(|word| word.strip_prefix("disk=")).unwrap_or("a");
    let writer = parts.writers.iter().find(|writer| writer.name.to_string() == disk);
    let writer = writer.ok_or_else(|| format!("there is no disk {disk}"))?;
    let words: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with("disk=")).collect();
    match words[..] {
        ["stop"] => return Ok(writer.stop()),
        ["status"] => return Ok(writer.describe()),
        _ => {}
    }
    let settings = settings(&words, &["rate", "burst", "slots"])?;
    Ok(writer.run(|orders: &mut writer::Orders| {
        if orders.slots == 0 {
            orders.slots = USUAL_SLOTS;
        }
        for (name, value) in settings {
            match name {
                "rate" => orders.rate = value,
                "burst" => orders.burst = value,
                _ => orders.slots = value,
            }
        }
    }))
}

fn dirty(words: &[&str], parts: &Parts) -> Result<String, String> {
    let settings = settings(words, &["mib", "rate", "working"])?;
    Ok(parts.dirtier.run(|orders: &mut dirtier::Orders| {
        for (name, value) in settings {
            match name {
                "mib" => orders.mib = value,
                "rate" => orders.rate = value,
                _ => orders.working_mib = value,
            }
        }
    }))
}

/// `name=number` for names that are known.
fn settings<'a>(words: &[&'a str], known: &[&str]) -> Result<Vec<(&'a str, u64)>, String> {
    let parse = |word: &&'a str| {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word} is not NAME=NUMBER"))?;
        if !known.contains(&name) {
            return Err(format!("{name} is none of {known:?}"));
        }
        Ok((name, value.parse().map_err(|_| format!("{value} is not a number"))?))
    };
    words.iter().map(parse).collect()
}
