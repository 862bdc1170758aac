//! The programs that run inside guests, made by `rustc` alone: static, so that a guest needs no libraries.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{self, Key};
use crate::program::Tool;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// The writer that reports over the serial console; it also verifies, on the host.
pub fn writer() -> PathBuf {
    program("guest_writer", "bin/guest_writer.rs", &["numbered.rs"])
}

/// All services of a guest with a network card.
pub fn service() -> PathBuf {
    program("guest_service", "bin/guest_service/main.rs", &["numbered.rs", "guest_kit/ports.rs"])
}

/// Build `main`, which includes its neighbours in a folder of its own, and the files in `beside`.
fn program(name: &str, main: &str, beside: &[&str]) -> PathBuf {
    let root = Path::new(SOURCES);
    let main = root.join(main);
    let mut sources: Vec<PathBuf> = beside.iter().map(|path| root.join(path)).collect();
    match main.ends_with("main.rs") {
        true => sources.extend(files_beside(&main)),
        false => sources.push(main.clone()),
    }
    sources.sort();
    let flags = ["--edition=2024", "-Copt-level=2", "-Cstrip=symbols", "-Ctarget-feature=+crt-static", "-o"];
    let key = Key::new("program 1").text(&flags.join(" ")).text(&Tool::new("rustc").arg("-V").run());
    let key = sources.iter().fold(key, |key, source| key.file(source));
    let folder = cache::kept(name, &key, |folder| {
        Tool::new("rustc").args(flags).arg(folder.join(name)).arg(&main).run();
    });
    folder.join(name)
}

fn files_beside(main: &Path) -> Vec<PathBuf> {
    let folder = main.parent().expect("a file lies in a folder");
    fs::read_dir(folder).expect("look at sources").flatten().map(|entry| entry.path()).collect()
}
