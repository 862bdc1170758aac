//! The programs that are started: found, and to be executed.

use std::env;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::config::Config;
use crate::finding::Finding;

/// All that are needed.
pub fn look(config: &Config) -> Vec<Finding> {
    let mut programs = vec![
        ("programs.qemu", config.programs.qemu.as_path(), "install qemu-system-x86, or name it by its path"),
        ("programs.blockd", config.programs.blockd.as_path(), "install blockd, or name it by its path"),
    ];
    if config.network.is_some() {
        programs.push(("network", Path::new("nft"), "install nftables, which tunnels need"));
    }
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    programs
        .into_iter()
        .filter_map(|(key, program, remedy)| Some(Finding::new(key, fault(program, &folders)?, remedy)))
        .collect()
}

/// Why a program cannot be started; none: it can.
fn fault(program: &Path, folders: &[PathBuf]) -> Option<String> {
    let shown = program.display();
    let places: Vec<PathBuf> = match program.is_absolute() {
        true => vec![program.to_owned()],
        false => folders.iter().map(|folder| folder.join(program)).collect(),
    };
    let files: Vec<&PathBuf> = places.iter().filter(|place| place.is_file()).collect();
    if files.iter().any(|file| access(file.as_path(), AccessFlags::X_OK).is_ok()) {
        return None;
    }
    Some(match files.first() {
        Some(file) => format!("{} cannot be executed", file.display()),
        None if program.is_absolute() => format!("{shown} is not there"),
        None => format!("{shown} is in no folder of $PATH"),
    })
}

#[cfg(test)]
mod tests {
    use super::fault;
    use std::path::{Path, PathBuf};

    #[test]
    fn a_program_is_found_by_path_or_name_and_can_be_executed() {
        let folders = [PathBuf::from("/nonexistent"), PathBuf::from("/bin"), PathBuf::from("/etc")];
        let fault = |program: &str| fault(Path::new(program), &folders);
        assert_eq!((fault("sh"), fault("/bin/sh")), (None, None));
        assert_eq!(fault("no-such-program").unwrap(), "no-such-program is in no folder of $PATH");
        assert_eq!(fault("/nonexistent/x").unwrap(), "/nonexistent/x is not there");
        assert_eq!(fault("/etc/passwd").unwrap(), "/etc/passwd cannot be executed");
        assert_eq!(fault("/etc").unwrap(), "/etc is not there");
    }
}
