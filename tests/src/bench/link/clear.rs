//! The same session of the link over plain TCP: what encryption is measured against.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use migrated::link::session::{Next, Session, Side};
use migrated::link::wire::{Frame, HEADER_BYTES, Header};
use migrated::link::{Label, Lane};

struct End {
    session: Mutex<Session>,
    changed: Condvar,
    start: Instant,
}

/// Bytes a second of a data channel on loopback, in the clear.
pub fn rate(bytes: u64) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let near = TcpStream::connect(listener.local_addr().expect("its address")).expect("connect");
    let (far, _) = listener.accept().expect("accept");
    let start = Instant::now();
    let ends = [(Side::Dialler, near), (Side::Listener, far)].map(|(side, stream)| {
        let end = Arc::new(End { session: Mutex::new(Session::new(side)), changed: Condvar::new(), start });
        end.session.lock().expect("no panic").attach(Lane::Data, Duration::ZERO);
        stream.set_nodelay(true).expect("a knob of TCP");
        for way in [run_sender, run_receiver] {
            let (end, stream) = (Arc::clone(&end), stream.try_clone().expect("a second handle"));
            thread::spawn(move || way(&end, stream));
        }
        end
    });
    let [near, far] = ends;
    let id = near.session.lock().expect("no panic").open(Label::Disk(0)).expect("a channel");
    thread::spawn(move || read_all(&far));
    let block = vec![7; 256 << 10];
    let mut left = bytes;
    while left > 0 {
        let mut session = near.session.lock().expect("no panic");
        let taken = session.write(id, &block[..left.min(block.len() as u64) as usize]).expect("it lives");
        left -= taken as u64;
        near.changed.notify_all();
        if taken == 0 {
            drop(near.changed.wait_timeout(session, Duration::from_millis(20)));
        }
    }
    loop {
        let mut session = near.session.lock().expect("no panic");
        if session.is_drained() {
            let rate = bytes as f64 / start.elapsed().as_secs_f64();
            session.close("done");
            near.changed.notify_all();
            return rate;
        }
        drop(near.changed.wait_timeout(session, Duration::from_millis(20)));
    }
}

fn run_sender(end: &End, mut stream: TcpStream) {
    let mut out = Vec::new();
    loop {
        out.clear();
        let mut session = end.session.lock().expect("no panic");
        let next = session.poll_frame(Lane::Data, end.start.elapsed(), &mut out);
        if next == Next::Over {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
        if next != Next::Frames {
            drop(end.changed.wait_timeout(session, Duration::from_millis(20)));
            continue;
        }
        drop(session);
        end.changed.notify_all();
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

fn run_receiver(end: &End, mut stream: TcpStream) {
    let mut buffer = vec![0; 256 << 10];
    let mut held = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer[held..]) {
        held += count;
        let mut used = 0;
        while let Some(head) = buffer[used..held].first_chunk::<HEADER_BYTES>() {
            let header = Header::decode(head).expect("our own header");
            let start = used + HEADER_BYTES;
            let Some(body) = buffer[..held].get(start..start + header.body_bytes as usize) else { break };
            let frame = Frame::decode(&header, body).expect("our own frame");
            let mut session = end.session.lock().expect("no panic");
            session.handle_frame(Lane::Data, &frame, end.start.elapsed()).expect("no breach");
            used = start + header.body_bytes as usize;
        }
        end.changed.notify_all();
        buffer.copy_within(used..held, 0);
        held -= used;
    }
}

/// Throws away what comes, to the end of the session.
fn read_all(end: &End) {
    let mut into = vec![0; 256 << 10];
    loop {
        let mut session = end.session.lock().expect("no panic");
        if session.over().is_some() {
            return;
        }
        let count = session
            .accept()
            .map(|(id, _)| id)
            .into_iter()
            .chain([1])
            .find_map(|id| session.read(id, &mut into).ok().flatten());
        end.changed.notify_all();
        if count.is_none() {
            drop(end.changed.wait_timeout(session, Duration::from_millis(20)));
        }
    }
}
