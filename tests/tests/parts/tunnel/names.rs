//! The name update at a real name server.

use std::net::{Ipv4Addr, SocketAddr};

use tests::knot::{KEY, Knot};
use tests::require;
use tunnel::NameUpdate;
use tunnel::io::dns::{self, DnsError};
use tunnel::update::Denial;

use super::ends::{NEW, OLD};

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
