//! Sends the guest, and looks at both ends of it until that has ended: at the migration's own numbers (`send --json`
//! prints them as they change) and at the client's.

use std::fs;
use std::time::{Duration, Instant};

use migrated::status::Status;

use super::screen::Screen;
use super::stage::Stage;
use super::view::{self, Users};
use crate::wait::rest;
use crate::wan::End;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Time for which the client is shown on after the move.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// How the command went.
#[derive(Debug)]
pub struct Sent {
    /// Its exit status.
    pub exit_code: i32,
    /// The last that it said of the migration; none: it never began.
    pub status: Option<Status>,
    /// What else it said.
    pub said: Vec<String>,
}

/// Send it, and look on.
pub fn send(stage: &Stage, screen: &mut Screen) -> Sent {
    const LOG: &str = "send.log";
    let words = ["--json", "send", "--wan", "web", "site-b"];
    let mut command = stage.hosts.begin(End::SiteA, &words, LOG);
    let log = stage.hosts.site(End::SiteA).join(LOG);
    let (begun, mut users, mut ended): (Instant, Users, Option<(Duration, i32)>) =
        (Instant::now(), Users::default(), None);
    let mut heard = Heard::default();
    loop {
        let now = begun.elapsed();
        if ended.is_none() {
            ended = command.ended().map(|code| (now, code));
        }
        heard.read(&fs::read_to_string(&log).unwrap_or_default());
        users.handle_progress(now, stage.prober.progress());
        if let Some(status) = &heard.status {
            let block = view::block(status, &users, now);
            screen.show(now, status.phase.name(), &block, || view::line(status, &users, now));
        }
        match ended {
            Some((at, exit_code)) if now - at >= AFTERWARDS => {
                return Sent { exit_code, status: heard.status, said: heard.other };
            }
            _ => rest(LOOK_EVERY),
        }
    }
}

/// What the command has printed so far.
#[derive(Debug, Default)]
struct Heard {
    taken_bytes: usize,
    status: Option<Status>,
    other: Vec<String>,
}

impl Heard {
    /// Take in what is new in all that it has printed: whole lines only.
    fn read(&mut self, all: &str) {
        let Some(new) = all.get(self.taken_bytes..) else { return };
        let Some(end) = new.rfind('\n') else { return };
        for line in new[..end].lines() {
            match serde_json::from_str::<Status>(line) {
                Ok(status) => self.status = Some(status),
                Err(_) => self.other.push(line.to_owned()),
            }
        }
        self.taken_bytes += end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::Heard;
    use migrated::status::Status;

    #[test]
    fn whole_lines_are_taken_once_and_what_is_no_status_is_kept_apart() {
        let mut heard = Heard::default();
        let status = serde_json::to_string(&Status::new("7", "web", "a", "b")).unwrap();
        heard.read("oh\n{\"cut");
        assert_eq!((heard.status.is_none(), heard.other.len()), (true, 1));
        heard.read(&format!("oh\n{status}\nmore"));
        assert_eq!((heard.status.unwrap().guest, heard.other), ("web".to_owned(), vec!["oh".to_owned()]));
    }
}
