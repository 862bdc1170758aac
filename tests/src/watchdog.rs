//! Kills what a test run has left when the run itself was killed, and removes its files.
//!
//! ```text
//! test program ── "begin GROUP", "end GROUP" ──► sh, which reads until the pipe ends, kills what is left, and
//!                                                removes the scratch directories of the program
//! ```
//!
//! One shell for each test program, in a process group of its own so that an interrupt does not reach it. The
//! death signal that a process can ask for is not enough: a daemon's child is not ours, and outlives its parent
//! on purpose.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::scratch;

const SCRIPT: &str = r#"
live=" "
while read -r word group; do
    case $word in
        begin) live="$live$group " ;;
        end) live="${live%% $group *} ${live#* $group }" ;;
    esac
done
for group in $live; do kill -s KILL -- "-$group"; done
for try in 1 2 3 4 5; do
    # What was killed may still be writing.
    rm -rf --one-file-system -- "${1:?}"* && break
    sleep 1
done
"#;

/// Kill the process group should this program end without releasing it.
pub fn guard(group: u32) {
    say("begin", group);
}

/// The group is gone, and its number may become somebody else's.
pub fn release(group: u32) {
    say("end", group);
}

fn say(word: &str, group: u32) {
    static WATCHDOG: OnceLock<Mutex<Child>> = OnceLock::new();
    let mut shell = WATCHDOG.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = shell.stdin.as_mut().expect("the standard input was piped");
    writeln!(pipe, "{word} {group}").expect("speak to the watchdog");
}

fn start() -> Mutex<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "watchdog"]).arg(scratch::prefix()).process_group(0).stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Mutex::new(command.spawn().expect("start the watchdog"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Command, Stdio};

    use super::SCRIPT;
    use crate::scratch::Scratch;

    #[test]
    fn what_was_not_released_is_killed_when_the_pipe_ends_and_the_files_are_removed() {
        let scratch = Scratch::new();
        let prefix = scratch.join("left-");
        for name in ["left-0", "left-1", "other"] {
            scratch.sparse(name, 4096);
        }
        let start = || Command::new("cat").arg("/dev/zero").process_group(0).stdout(Stdio::null()).spawn();
        let (mut left, mut released) = (start().expect("start cat"), start().expect("start cat"));
        let mut shell = Command::new("sh");
        let mut shell = shell
            .args(["-c", SCRIPT, "watchdog"])
            .arg(prefix)
            .stdin(Stdio::piped())
            .spawn()
            .expect("start a shell");
        let mut pipe = shell.stdin.take().expect("the standard input was piped");
        let (one, other) = (released.id(), left.id());
        writeln!(pipe, "begin {one}\nbegin {other}\nend {one}").expect("speak to the watchdog");
        drop(pipe);
        assert!(shell.wait().expect("wait for the shell").success());
        assert_eq!(left.wait().expect("wait for cat").signal(), Some(9));
        assert!(released.try_wait().expect("look after cat").is_none());
        assert!(!scratch.join("left-0").exists() && !scratch.join("left-1").exists());
        assert!(scratch.join("other").exists());
        released.kill().and_then(|()| released.wait()).expect("end cat");
    }
}
