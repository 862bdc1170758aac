//! `make demo`: two sites, a thin link, and a guest that moves while somebody uses it.
//!
//! ```text
//! wish ──► stage (sites, link, name server, guest, client) ──► watch (send, looked at from both ends) ──► account
//! flags                                                         view: lines      screen: where they go
//! ```
//!
//! Everything in it is real but the distance: two daemons, QEMU, blockd, a kernel's netem, a name server, a TCP
//! session. It shows what it finds, also where that is not what was hoped for, and says so by its exit status.

pub mod wish;
pub mod screen;
pub mod stage;
pub mod view;
pub mod watch;
pub mod account;

use std::io;

use self::account::Account;
use self::screen::Screen;
use self::stage::Stage;
use self::wish::Wish;
use crate::requires::Missing;

/// Show it. True: the guest moved, and nothing was violated.
pub fn run(wish: &Wish) -> Result<bool, Missing> {
    let mut screen = Screen::open(wish.json);
    screen.say("A running guest moves to another site, with its disk, its memory, its address and its name.");
    let stage = Stage::set(wish, &mut screen)?;
    screen.say("");
    screen.say("$ migrated send --wan web site-b        (typed at site-a)");
    let seen = watch::send(&stage, &mut screen);
    let before_judgement = account::look(&stage, seen);
    if wish.keep {
        keep(&stage, &mut screen);
    }
    screen.say("");
    screen.say("Looking whether anything was lost …");
    let account = Account::close(wish, stage, before_judgement);
    for line in account.lines() {
        screen.say(&line);
    }
    screen.end(&account);
    Ok(account.is_good())
}

/// Leave everything as it is until somebody presses Enter.
fn keep(stage: &Stage, screen: &mut Screen) {
    screen.say("");
    for line in stage.directions() {
        screen.say(&line);
    }
    let _ = io::stdin().read_line(&mut String::new());
}
