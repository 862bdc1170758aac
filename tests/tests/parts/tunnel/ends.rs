//! Both ends of a tunnel between two sites, what their kernels hold, and a session with the guest.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use tests::tunnel_world::{GUEST_MAC, Held, Space, World};
use tests::wait::PATIENCE;
use tunnel::{Move, Side, SwitchReport, Tunnel};

pub const OLD: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
pub const NEW: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

pub fn site_a() -> Move {
    Move {
        id: 7,
        guest_mac: GUEST_MAC,
        guest_address: OLD,
        local: Ipv4Addr::new(192, 0, 2, 2),
        remote: Ipv4Addr::new(192, 0, 2, 6),
        bridge: "br0".to_owned(),
        tap: Some("tapA".to_owned()),
        new_address: None,
    }
}

pub fn site_b() -> Move {
    let Move { local, remote, .. } = site_a();
    Move { local: remote, remote: local, tap: Some("tapB".to_owned()), new_address: Some(NEW), ..site_a() }
}

pub fn prepare(site: &Space, side: Side, moved: Move) -> Tunnel {
    site.block_on(move || Tunnel::prepare(side, moved)).unwrap()
}

pub fn prepare_both(world: &World) -> (Tunnel, Tunnel) {
    let at_a = prepare(&world.site_a, Side::Source, site_a());
    (at_a, prepare(&world.site_b, Side::Destination, site_b()))
}

pub fn switch(site: &Space, tunnel: &Tunnel) -> SwitchReport {
    let tunnel = tunnel.clone();
    site.block_on(move || async move { tunnel.switch().await }).unwrap()
}

pub fn switch_back(site: &Space, tunnel: &Tunnel) {
    let tunnel = tunnel.clone();
    site.block_on(move || async move { tunnel.switch_back().await }).unwrap();
}

pub fn remove(site: &Space, tunnel: &Tunnel) {
    let tunnel = tunnel.clone();
    site.block_on(move || async move { tunnel.remove().await }).unwrap();
}

/// What both sites' kernels hold.
pub fn both(world: &World) -> [Held; 2] {
    [World::held(&world.site_a), World::held(&world.site_b)]
}

pub fn changed(before: &[Held; 2], after: &[Held; 2]) -> Vec<String> {
    before.iter().zip(after).flat_map(|(before, after)| before.differences(after)).collect()
}

/// A guest's service: says back every line. It ends with the test program.
pub fn serve_echo(guest: &Space) {
    guest.run(|| {
        let listener = TcpListener::bind("0.0.0.0:7").unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    let mut stream = stream;
                    while let Some(Ok(line)) = lines.next() {
                        if writeln!(stream, "{line} from {}", stream.peer_addr().unwrap().ip()).is_err() {
                            break;
                        }
                    }
                });
            }
        });
    });
}

/// A session with the guest's service.
pub struct Session {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Session {
    pub fn open(space: &Space, to: Ipv4Addr) -> Self {
        let stream = space
            .run(move || TcpStream::connect_timeout(&SocketAddr::from((to, 7)), PATIENCE))
            .unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { lines: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    /// Whom the guest takes us for.
    pub fn say(&mut self, word: &str) -> String {
        writeln!(self.stream, "{word}").unwrap();
        let mut answer = String::new();
        self.lines.read_line(&mut answer).unwrap();
        answer
            .trim()
            .strip_prefix(&format!("{word} from "))
            .unwrap_or_else(|| panic!("{answer:?}"))
            .to_owned()
    }
}
