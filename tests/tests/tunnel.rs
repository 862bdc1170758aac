//! The tunnel in real network namespaces, and the name update at a real name server.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::knot::{KEY, Knot};
use tests::tunnel_world::{GUEST_MAC, Held, Space, World};
use tests::wait::PATIENCE;
use tests::{require, requires};
use tunnel::io::dns::{self, DnsError};
use tunnel::update::Denial;
use tunnel::{Move, NameUpdate, Side, SwitchReport, Tunnel, TunnelError};

const OLD: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const NEW: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn site_a() -> Move {
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

fn site_b() -> Move {
    let Move { local, remote, .. } = site_a();
    Move { local: remote, remote: local, tap: Some("tapB".to_owned()), new_address: Some(NEW), ..site_a() }
}

fn prepare(site: &Space, side: Side, moved: Move) -> Tunnel {
    site.block_on(move || Tunnel::prepare(side, moved)).unwrap()
}

fn prepare_both(world: &World) -> (Tunnel, Tunnel) {
    let at_a = prepare(&world.site_a, Side::Source, site_a());
    (at_a, prepare(&world.site_b, Side::Destination, site_b()))
}

fn switch(site: &Space, tunnel: &Tunnel) -> SwitchReport {
    let tunnel = tunnel.clone();
    site.block_on(move || async move { tunnel.switch().await }).unwrap()
}

fn switch_back(site: &Space, tunnel: &Tunnel) {
    let tunnel = tunnel.clone();
    site.block_on(move || async move { tunnel.switch_back().await }).unwrap();
}

fn remove(site: &Space, tunnel: &Tunnel) {
    let tunnel = tunnel.clone();
    site.block_on(move || async move { tunnel.remove().await }).unwrap();
}

/// What both sites' kernels hold.
fn both(world: &World) -> [Held; 2] {
    [World::held(&world.site_a), World::held(&world.site_b)]
}

fn changed(before: &[Held; 2], after: &[Held; 2]) -> Vec<String> {
    before.iter().zip(after).flat_map(|(before, after)| before.differences(after)).collect()
}

/// A guest's service: says back every line. It ends with the test program.
fn serve_echo(guest: &Space) {
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
struct Session {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Session {
    fn open(space: &Space, to: Ipv4Addr) -> Self {
        let stream = space
            .run(move || TcpStream::connect_timeout(&SocketAddr::from((to, 7)), PATIENCE))
            .unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { lines: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    /// Whom the guest takes us for.
    fn say(&mut self, word: &str) -> String {
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

#[test]
fn sessions_of_a_client_and_of_a_lan_neighbour_survive_and_new_ones_find_the_guest() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    serve_echo(&world.guest);
    let mut from_client = Session::open(&world.client, OLD);
    let mut from_lan = Session::open(&world.neighbour, OLD);
    assert_eq!(
        (from_client.say("before").as_str(), from_lan.say("before").as_str()),
        ("192.0.2.9", "10.1.0.50")
    );

    let (at_a, at_b) = prepare_both(&world);
    for (site, end) in [(&world.site_a, &at_a), (&world.site_b, &at_b)] {
        let end = end.clone();
        site.block_on(move || async move { end.probe(PATIENCE).await }).unwrap();
    }
    // Prepared: all is as it was, also for who connects anew.
    assert_eq!(from_client.say("prepared"), "192.0.2.9");
    assert_eq!(Session::open(&world.neighbour, OLD).say("prepared"), "10.1.0.50");

    let at_source = switch(&world.site_a, &at_a);
    let at_destination = switch(&world.site_b, &at_b);
    println!("switched in {:?} at the source, {:?} at the destination", at_source.took, at_destination.took);
    assert!(at_source.announced && at_destination.announced);
    world.move_guest(true);

    // The guest still sends to the MACs of A's router and of its old neighbour.
    assert_eq!(from_client.say("moved"), "192.0.2.9");
    assert_eq!(from_lan.say("moved"), "10.1.0.50");
    assert_eq!(Session::open(&world.client, OLD).say("new"), "192.0.2.9");
    assert_eq!(Session::open(&world.neighbour, OLD).say("new"), "10.1.0.50");
    // A neighbour that knows nothing yet, and the hosts themselves.
    world.neighbour.ip("neigh flush all");
    assert_eq!(Session::open(&world.neighbour, OLD).say("asked"), "10.1.0.50");
    assert_eq!(Session::open(&world.site_a, OLD).say("router"), "10.1.0.1");
    assert_eq!(Session::open(&world.site_b, OLD).say("router"), "10.2.0.1");

    // The new address leads there too, on the short way, and the old sessions go on beside it.
    assert_eq!(Session::open(&world.client, NEW).say("by the new address"), "192.0.2.9");
    assert_eq!(Session::open(&world.stranger, NEW).say("from B's own network"), "10.2.0.60");
    assert_eq!(Session::open(&world.site_b, NEW).say("from B itself"), NEW.to_string());
    assert_eq!(
        (from_client.say("after").as_str(), from_lan.say("after").as_str()),
        ("192.0.2.9", "10.1.0.50")
    );
    let reached = world.site_b.block_on(|| tunnel::io::probe::reachable(NEW, PATIENCE));
    reached.unwrap();
}

#[test]
fn a_new_connection_of_the_guest_comes_from_its_new_address() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let (at_a, at_b) = prepare_both(&world);
    switch(&world.site_a, &at_a);
    switch(&world.site_b, &at_b);
    world.move_guest(true);
    let listener = world.client.run(|| TcpListener::bind("192.0.2.9:80")).unwrap();
    let _out = world.guest.run(|| TcpStream::connect("192.0.2.9:80")).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), NEW);
}

#[test]
fn the_guest_asks_who_has_its_own_address_and_nobody_says_me() {
    require!(requires::root());
    require!(requires::program("busybox"));
    require!(requires::program("nft"));
    let world = World::new();
    let (at_a, at_b) = prepare_both(&world);
    switch(&world.site_a, &at_a);
    switch(&world.site_b, &at_b);
    world.move_guest(true);
    world.guest.ip("neigh flush all");
    // Its old neighbours it finds at B's router.
    world.guest.program("ping", "-c 1 -W 20 10.1.0.50");
    let known = world.guest.ip("neigh show 10.1.0.50");
    assert!(known.contains("02:00:00:00:00:b2"), "{known}");
    // "Who has my address?", as a guest announces itself: an answer would be another owner.
    let asks = |address: &'static str| {
        world.guest.run(move || {
            let arguments = ["arping", "-q", "-c", "1", "-w", "1", "-I", "atB", "-s", "10.1.0.100", address];
            Command::new("busybox").args(arguments).stdout(Stdio::null()).status().unwrap().success()
        })
    };
    assert!(asks("10.1.0.50"));
    assert!(!asks("10.1.0.100"));
}

#[test]
fn switched_back_and_removed_everything_is_as_it_was() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    serve_echo(&world.guest);
    let mut from_client = Session::open(&world.client, OLD);
    let mut from_lan = Session::open(&world.neighbour, OLD);
    // Numbers that are nobody's defaults.
    world.site_a.set("neigh/br0/proxy_delay", 36);
    world.site_b.set("neigh/br0/proxy_delay", 44);
    let before = both(&world);

    let (at_a, at_b) = prepare_both(&world);
    // Never switched: nothing happens.
    switch_back(&world.site_a, &at_a);
    for _ in 0..2 {
        let prepared = both(&world);
        switch(&world.site_a, &at_a);
        switch(&world.site_b, &at_b);
        assert_ne!(changed(&prepared, &both(&world)), [""; 0]);
        switch_back(&world.site_b, &at_b);
        switch_back(&world.site_a, &at_a);
        assert_eq!(changed(&prepared, &both(&world)), [""; 0]);
        // The neighbour was told twice where the guest is.
        assert_eq!(
            (from_client.say("back").as_str(), from_lan.say("back").as_str()),
            ("192.0.2.9", "10.1.0.50")
        );
        assert_eq!(Session::open(&world.neighbour, OLD).say("new"), "10.1.0.50");
    }
    // Removed in the middle of it, and once more.
    switch(&world.site_a, &at_a);
    switch(&world.site_b, &at_b);
    for _ in 0..2 {
        remove(&world.site_a, &at_a);
        remove(&world.site_b, &at_b);
        assert_eq!(changed(&before, &both(&world)), [""; 0]);
    }
    assert_eq!(from_client.say("removed"), "192.0.2.9");
}

#[test]
fn after_a_crash_the_id_is_enough() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let before = both(&world);
    for _ in 0..2 {
        // The second time over what the first has left.
        let (at_a, at_b) = prepare_both(&world);
        switch(&world.site_a, &at_a);
        switch(&world.site_b, &at_b);
    }
    let found = world.site_b.block_on(tunnel::io::tunnel::existing).unwrap();
    assert_eq!(found, [(Side::Destination, site_b())]);
    for site in [&world.site_a, &world.site_b] {
        site.block_on(|| tunnel::remove_leftovers(7)).unwrap();
        site.block_on(|| tunnel::remove_leftovers(7)).unwrap();
    }
    assert_eq!(changed(&before, &both(&world)), [""; 0]);
}

#[test]
fn two_guests_of_one_bridge_move_at_once_and_the_last_restores_the_settings() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let before = World::held(&world.site_b);
    let other = Move {
        id: 8,
        guest_mac: [0x52, 0x54, 0, 0x12, 0x34, 0x57],
        guest_address: Ipv4Addr::new(10, 1, 0, 101),
        tap: None,
        new_address: Some(Ipv4Addr::new(198, 51, 100, 8)),
        ..site_b()
    };
    let first = prepare(&world.site_b, Side::Destination, site_b());
    switch(&world.site_b, &first);
    let second = prepare(&world.site_b, Side::Destination, other);
    switch(&world.site_b, &second);
    let proxy_arp = || world.site_b.program("sysctl", "-n net.ipv4.conf.br0.proxy_arp");
    remove(&world.site_b, &first);
    assert_eq!(proxy_arp().trim(), "1");
    remove(&world.site_b, &second);
    assert_eq!(before.differences(&World::held(&world.site_b)), [""; 0]);
}

#[test]
fn a_refused_step_says_which_change_and_why_and_leaves_nothing() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let site = &world.site_b;
    let before = World::held(site);
    let refused = |moved: Move| {
        let result = site.block_on(move || Tunnel::prepare(Side::Destination, moved));
        result.map(|_| ()).unwrap_err()
    };
    let error = refused(Move { bridge: "br9".to_owned(), ..site_b() });
    assert!(matches!(&error, TunnelError::NoBridge { bridge } if bridge == "br9"), "{error}");
    // The number is taken by another device of the administrator's.
    site.ip("link add office type vxlan id 7 remote 192.0.2.2 dstport 4789");
    let with_office = World::held(site);
    let error = refused(site_b()).to_string();
    assert_eq!(
        error,
        "add vxlan device move7 (number 7, 192.0.2.6 to 192.0.2.2): somebody else's device has this name or this \
         network number (kernel: A VXLAN device with the specified VNI already exists)"
    );
    assert_eq!(with_office.differences(&World::held(site)), [""; 0]);
    // Or the name.
    site.ip("link set office name move7");
    let error = refused(site_b()).to_string();
    assert!(error.contains("somebody else's device has the name"), "{error}");
    site.ip("link del move7");
    // The guest's port is gone at the switch.
    let tunnel = prepare(site, Side::Destination, Move { tap: Some("tap9".to_owned()), ..site_b() });
    let prepared = World::held(site);
    let end = tunnel.clone();
    let error = site.block_on(move || async move { end.switch().await }).unwrap_err().to_string();
    assert_eq!(error, "add 52:54:00:12:34:56 behind port tap9: there is no such device");
    assert_eq!(prepared.differences(&World::held(site)), [""; 0]);
    remove(site, &tunnel);
    assert_eq!(before.differences(&World::held(site)), [""; 0]);
}

#[test]
fn a_cut_link_is_a_silent_other_end() {
    require!(requires::root());
    require!(requires::program("nft"));
    let world = World::new();
    let (at_a, _at_b) = prepare_both(&world);
    world.wan.ip("link set to-b down");
    let error = world.site_a.block_on(move || async move { at_a.probe(Duration::from_millis(300)).await });
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("the tunnel's other end: "), "{error}");
    assert!(error.contains("240.0.0.30"), "{error}");
}

fn name_update(server: SocketAddr) -> NameUpdate {
    NameUpdate {
        server,
        zone: "lab.test".to_owned(),
        name: "web.lab.test".to_owned(),
        key_name: "mover".to_owned(),
        key_secret: KEY.to_vec(),
        ttl_s: 30,
        old: Some(OLD),
        new: NEW,
    }
}

fn send(update: NameUpdate) -> Result<dns::Updated, DnsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(dns::update(&update))
}

fn denial(update: NameUpdate) -> Denial {
    match send(update).unwrap_err() {
        DnsError::Denied { denial, .. } => denial,
        other => panic!("{other}"),
    }
}

#[test]
fn a_name_follows_the_guest_and_only_one_site_can_claim_it() {
    let knot = require!(Knot::start(OLD));
    let updated = send(name_update(knot.address)).unwrap();
    assert_eq!((updated.serial, updated.ttl_s, updated.attempt), (2, 30, 1));
    // The other site expects what was there before.
    let claimed = denial(NameUpdate { new: Ipv4Addr::new(203, 0, 113, 9), ..name_update(knot.address) });
    assert_eq!(claimed, Denial::ChangedByOther { name: "web.lab.test".to_owned(), expected: OLD });
    // By force, and a name that was not there.
    let forced = NameUpdate { old: None, new: OLD, ..name_update(knot.address) };
    assert_eq!(send(forced.clone()).unwrap().serial, 3);
    send(NameUpdate { name: "db.lab.test".to_owned(), ..forced }).unwrap();
}

#[test]
fn a_name_server_says_no_for_many_reasons_and_each_is_told() {
    let knot = require!(Knot::start(OLD));
    let good = || name_update(knot.address);
    let key = "mover".to_owned();
    assert_eq!(
        denial(NameUpdate { key_secret: vec![1; 32], ..good() }),
        Denial::WrongKey { key: key.clone() }
    );
    let unknown = "nobody".to_owned();
    assert_eq!(
        denial(NameUpdate { key_name: unknown.clone(), ..good() }),
        Denial::UnknownKey { key: unknown }
    );
    let zone = "elsewhere.test".to_owned();
    let elsewhere = NameUpdate { zone: zone.clone(), name: "web.elsewhere.test".to_owned(), ..good() };
    assert_eq!(denial(elsewhere), Denial::NotAuthoritative { zone, key });
    // A key that the server knows, but which may change nothing.
    let stranger = denial(NameUpdate { key_name: "stranger".to_owned(), ..good() });
    assert!(stranger.to_string().contains("stranger"), "{stranger}");
    // After all of it nothing has changed.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(dns::lookup(knot.address, "web.lab.test")).unwrap(), [OLD]);
}

#[test]
fn a_dead_name_server_is_told_as_such() {
    let knot = require!(Knot::start(OLD));
    let update = name_update(knot.address);
    drop(knot);
    let error = send(update).unwrap_err();
    assert!(matches!(error, DnsError::NoAnswer { .. }), "{error}");
    assert!(error.to_string().contains("does not answer: tcp: connection refused"), "{error}");
}
