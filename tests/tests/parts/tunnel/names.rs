//! A guest's name at real name servers, Knot and BIND: only what was the guest's is changed, and who may not is told so.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;

use tests::name_server::{Kind, NameServer};
use tests::require;
use tunnel::io::dns::{DnsError, Updated, try_key, try_name, update};
use tunnel::name::Unfit;
use tunnel::update::Denial;
use tunnel::{Authority, NameChange, TsigKey};

use super::ends::{NEW, OLD};

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 101);
const AT_C: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

const RECORDS: &str = "\
    one 60 A 10.1.0.100\n\
    web 300 A 10.1.0.100\n\
    web 300 A 10.1.0.101\n\
    web 300 AAAA 2001:db8::1\n\
    web 300 TXT stays\n\
    elsewhere 300 A 10.1.0.101\n\
    alias 300 CNAME web\n\
    *.wild 300 A 10.1.0.100\n";

/// Each test at each server.
macro_rules! at_each_server {
    ($($test:ident),+ $(,)?) => {
        mod knot {
            use super::*;
            $(#[test]
            fn $test() {
                super::$test(&require!(NameServer::start(Kind::Knot, RECORDS)));
            })+
        }
        mod bind {
            use super::*;
            $(#[test]
            fn $test() {
                super::$test(&require!(NameServer::start(Kind::Bind, RECORDS)));
            })+
        }
    };
}

at_each_server![
    only_the_address_that_was_the_guests_is_changed,
    a_name_follows_there_and_back_and_further,
    what_was_never_the_guests_is_left_alone,
    of_two_that_claim_a_name_one_has_it,
    who_may_not_change_a_name_is_told_so_and_nothing_is_changed,
    a_right_to_one_name_is_told_from_a_right_to_all,
];

fn done<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn change(name: &str, had: &[Ipv4Addr], new: Ipv4Addr) -> NameChange {
    NameChange { name: format!("{name}.lab.test"), had: had.to_vec(), new, ttl_s: 30 }
}

fn follow(server: &NameServer, wanted: &NameChange) -> Result<Updated, DnsError> {
    done(update(&server.authority("lab.test", "mover"), wanted))
}

fn addresses(server: &NameServer, name: &str) -> Vec<String> {
    server.records(&format!("{name}.lab.test"), "A")
}

fn only_the_address_that_was_the_guests_is_changed(server: &NameServer) {
    let updated = follow(server, &change("one", &[OLD], NEW)).unwrap();
    assert_eq!((updated.serial, updated.ttl_s, updated.is_changed), (2, 30, true));
    assert_eq!(addresses(server, "one"), ["30 A 198.51.100.7"]);

    // Another machine's address stays, with its time to live, which all addresses of a name share (RFC 2181, 5.2).
    let updated = follow(server, &change("web", &[OLD], NEW)).unwrap();
    assert_eq!((updated.ttl_s, &updated.others[..]), (300, &[OTHER][..]));
    assert_eq!(addresses(server, "web"), ["300 A 10.1.0.101", "300 A 198.51.100.7"]);
    assert_eq!(server.records("web.lab.test", "AAAA"), ["300 AAAA 2001:db8::1"]);
    assert_eq!(server.records("web.lab.test", "TXT"), ["300 TXT \"stays\""]);

    // Once more, as by a host whose answer was lost: nothing is sent.
    let again = follow(server, &change("web", &[OLD], NEW)).unwrap();
    assert_eq!((again.serial, again.is_changed), (3, false));
    assert_eq!(server.serial("lab.test"), Some(3));

    // A name that led to nothing.
    follow(server, &change("db", &[OLD], NEW)).unwrap();
    assert_eq!(addresses(server, "db"), ["30 A 198.51.100.7"]);
}

fn a_name_follows_there_and_back_and_further(server: &NameServer) {
    follow(server, &change("web", &[OLD], NEW)).unwrap();
    follow(server, &change("web", &[OLD, NEW], OLD)).unwrap();
    assert_eq!(addresses(server, "web"), ["300 A 10.1.0.100", "300 A 10.1.0.101"]);
    follow(server, &change("web", &[OLD], NEW)).unwrap();
    follow(server, &change("web", &[OLD, NEW], AT_C)).unwrap();
    assert_eq!(addresses(server, "web"), ["300 A 10.1.0.101", "300 A 203.0.113.9"]);
}

fn what_was_never_the_guests_is_left_alone(server: &NameServer) {
    let refused = |name: &str| follow(server, &change(name, &[OLD], NEW)).unwrap_err();
    let elsewhere = refused("elsewhere");
    assert!(matches!(&elsewhere, DnsError::Unfit(Unfit::Elsewhere { .. })), "{elsewhere}");
    let alias = refused("alias");
    assert!(
        matches!(&alias, DnsError::Unfit(Unfit::Alias { target, .. }) if target == "web.lab.test"),
        "{alias}"
    );
    // It leads to the guest, by a record that is not its own.
    let wild = refused("guest.wild");
    assert!(matches!(&wild, DnsError::NoRecord { .. }), "{wild}");
    let authority = server.authority("lab.test", "mover");
    assert!(done(try_name(&authority, "alias.lab.test")).unwrap_err().to_string().contains("CNAME"));
    assert_eq!(server.serial("lab.test"), Some(1));
}

fn of_two_that_claim_a_name_one_has_it(server: &NameServer) {
    let authority = server.authority("lab.test", "mover");
    let (here, there) = (change("one", &[OLD], NEW), change("one", &[OLD], AT_C));
    let (here, there) = done(async { tokio::join!(update(&authority, &here), update(&authority, &there)) });
    let (won, lost) = match (here, there) {
        (Ok(_), Err(lost)) => ("30 A 198.51.100.7", lost),
        (Err(lost), Ok(_)) => ("30 A 203.0.113.9", lost),
        both => panic!("{both:?}"),
    };
    assert!(matches!(&lost, DnsError::Unfit(Unfit::Elsewhere { .. })), "{lost}");
    assert_eq!(addresses(server, "one"), [won]);
}

fn who_may_not_change_a_name_is_told_so_and_nothing_is_changed(server: &NameServer) {
    let good = server.authority("lab.test", "mover");
    let key = |key: TsigKey| Authority { key, ..good.clone() };
    let wrong = key(TsigKey { secret: vec![1; 32], ..good.key.clone() });
    let unknown = server.authority("lab.test", "nobody");
    let stranger = server.authority("lab.test", "stranger");
    let elsewhere = server.authority("elsewhere.test", "mover");
    let denial = |error: DnsError| match error {
        DnsError::Denied { denial, .. } => denial,
        other => panic!("{other}"),
    };
    for (authority, is_it) in [
        (&wrong, (|denial| matches!(denial, Denial::WrongKey { .. })) as fn(&Denial) -> bool),
        (&unknown, |denial| matches!(denial, Denial::UnknownKey { .. })),
        // Knot does not know a key that may do nothing.
        (&stranger, |denial| matches!(denial, Denial::UnknownKey { .. } | Denial::Refused { .. })),
        (&elsewhere, |denial| matches!(denial, Denial::NotAuthoritative { .. })),
    ] {
        let name = format!("one.{}", authority.zone);
        let wanted = NameChange { name: name.clone(), ..change("one", &[OLD], NEW) };
        let changed = denial(done(update(authority, &wanted)).unwrap_err());
        assert!(is_it(&changed), "{changed}");
        // Tried before, it says the same.
        assert_eq!(denial(done(try_name(authority, &name)).unwrap_err()).to_string(), changed.to_string());
        let let_in = denial(done(try_key(authority)).unwrap_err());
        assert!(is_it(&let_in), "{let_in}");
    }
    done(try_key(&good)).unwrap();
    assert_eq!(done(try_name(&good, "one.lab.test")).unwrap().hosts(), [OLD]);
    assert!(done(try_name(&good, "nothing.lab.test")).unwrap().hosts().is_empty());
    assert_eq!(server.serial("lab.test"), Some(1));
    assert_eq!(addresses(server, "one"), ["60 A 10.1.0.100"]);
}

fn a_right_to_one_name_is_told_from_a_right_to_all(server: &NameServer) {
    let mover = server.authority("own.test", "mover");
    done(try_key(&mover)).unwrap();
    assert_eq!(done(try_name(&mover, "web.own.test")).unwrap().hosts(), [OLD]);
    let other = done(try_name(&mover, "db.own.test")).unwrap_err();
    assert!(other.to_string().contains("db.own.test"), "{other}");
    assert!(matches!(other, DnsError::Denied { .. }), "{other}");
    assert_eq!(server.serial("own.test"), Some(1));
    let wanted = NameChange { name: "web.own.test".to_owned(), ..change("web", &[OLD], NEW) };
    done(update(&mover, &wanted)).unwrap();
    assert_eq!(server.records("web.own.test", "A"), ["30 A 198.51.100.7"]);
}

#[test]
fn a_set_of_addresses_that_fits_into_no_packet_is_changed_whole() {
    let others: Vec<String> = (1..=60).map(|last| format!("many 300 A 10.9.0.{last}\n")).collect();
    let records = others.concat() + "many 300 A 10.1.0.100\n";
    let server = require!(NameServer::start(Kind::Knot, &records));
    let updated = follow(&server, &change("many", &[OLD], NEW)).unwrap();
    assert_eq!((updated.others.len(), updated.ttl_s), (60, 300));
    let found = addresses(&server, "many");
    assert!(found.len() == 61 && found.contains(&"300 A 198.51.100.7".to_owned()), "{found:?}");
}

#[test]
fn a_dead_name_server_is_told_as_such() {
    let server = require!(NameServer::start(Kind::Knot, RECORDS));
    let authority = server.authority("lab.test", "mover");
    drop(server);
    let error = done(update(&authority, &change("one", &[OLD], NEW))).unwrap_err();
    assert!(error.is_silence(), "{error}");
    assert!(error.to_string().contains("does not answer: tcp: connection refused"), "{error}");
    assert!(done(try_key(&authority)).unwrap_err().is_silence());
}

/// Between client and server: the first answer to an update is lost.
fn lossy(server: SocketAddr) -> SocketAddr {
    let (front, back) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = front.local_addr().unwrap();
    back.connect(server).unwrap();
    // It ends with the test program.
    thread::spawn(move || {
        let mut packet = [0; 4096];
        let mut is_lost = false;
        while let Ok((len_bytes, client)) = front.recv_from(&mut packet) {
            // The kind of message is in the third byte: UPDATE is 5.
            let is_update = packet[2] >> 3 & 0xf == 5;
            back.send(&packet[..len_bytes]).unwrap();
            let len_bytes = back.recv(&mut packet).unwrap();
            if is_update && !is_lost {
                is_lost = true;
                continue;
            }
            front.send_to(&packet[..len_bytes], client).unwrap();
        }
    });
    address
}

#[test]
#[ignore = "soak: waits three seconds for an answer that is lost"]
fn soak_an_update_whose_answer_is_lost_is_done_once() {
    let server = require!(NameServer::start(Kind::Knot, RECORDS));
    let authority = Authority { server: lossy(server.address), ..server.authority("lab.test", "mover") };
    let updated = done(update(&authority, &change("web", &[OLD], NEW))).unwrap();
    assert_eq!((updated.serial, &updated.others[..]), (2, &[OTHER][..]));
    assert_eq!(addresses(&server, "web"), ["300 A 10.1.0.101", "300 A 198.51.100.7"]);
}
