//! All programs of a test guest in one: its first process after the disk is mounted.
//!
//! ```text
//! port 7     echo (TCP, UDP)      a line comes back with the guest's clock behind it
//! port 7001  writer of disk a     every number that the disk has acknowledged, one a line
//! port 7002  writer of disk b     the same for the second disk, if there is one
//! port 7003  commands             see `commands`
//! ```
//!
//! Everything is idle at the start and set at run time, so that one saved state of the guest serves every test.
//! Plain `std`, so that `rustc` alone makes a static program of it.

#[path = "../../numbered.rs"]
#[allow(dead_code)]
mod numbered;
#[path = "../../guest_kit/ports.rs"]
mod ports;

mod console;
mod clock;
mod writer;
mod dirtier;
mod echo;
mod power;
mod network;
mod commands;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::{io, iter};

use clock::Clock;
use commands::Parts;
use console::say;
use dirtier::Dirtier;
use writer::Writer;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("cannot serve: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let clock = Arc::new(Clock::start());
    let mut writers = vec![Writer::start('a', "/data/w")];
    if Path::new("/dev/vdb").exists() {
        writers.push(Writer::start('b', "/dev/vdb"));
    }
    for (writer, port) in writers.iter().zip(ports::ACKNOWLEDGED..) {
        let writer = Arc::clone(writer);
        listen(port, move |stream| writer.tell(&stream))?;
    }
    let of_lines = Arc::clone(&clock);
    listen(ports::ECHO, move |stream| echo::lines(&stream, &of_lines))?;
    let (socket, of_datagrams) = (UdpSocket::bind((Ipv4Addr::UNSPECIFIED, ports::ECHO))?, Arc::clone(&clock));
    thread::spawn(move || echo::datagrams(&socket, &of_datagrams));
    let parts = Parts { clock, writers, dirtier: Dirtier::start() };
    listen(ports::COMMANDS, move |stream| commands::answer(&stream, &parts))?;
    power::watch_buttons();
    say("ready");
    // The first process must not end.
    loop {
        thread::park();
    }
}

/// Serve every client of `port` by a thread of its own; a client that goes away ends only its thread.
fn listen<F>(port: u16, serve: F) -> io::Result<()>
where
    F: Fn(std::net::TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in iter::repeat_with(|| listener.accept()).flatten().map(|(stream, _)| stream) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || stream.set_nodelay(true).and_then(|()| serve(stream)));
        }
    });
    Ok(())
}
