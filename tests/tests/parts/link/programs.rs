//! A link that programs carry, as `send --transport exec:…` makes it.

use migrated::io::keys::Peer;
use migrated::io::link::{Link, LinkListener};
use migrated::link::Label;
use migrated::link::error::LinkError;
use migrated::transport::Transport;
use tests::{binaries, require};
use tokio::sync::watch;

use super::ends::{Host, refused, soon};
use super::wire::{Wire, drain, pour};

fn exec(words: &[&str]) -> Option<Transport> {
    Some(Transport::Exec(words.iter().map(|word| (*word).to_owned()).collect()))
}

fn hosts() -> [Host; 2] {
    let [near, far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    [near, far]
}

/// Nobody can be reached there: what carries the link must know the way.
fn nowhere(peer: Peer) -> Peer {
    Peer { address: "127.0.0.1:1".parse().unwrap(), data_addresses: Vec::new(), ..peer }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_programs_carry_a_link_and_their_end_is_a_stall() {
    const TOTAL: u64 = 20 << 20;
    let program = require!(binaries::migrated()).display().to_string();
    let [mut near, far] = hosts();
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let wire = Wire::new(listener.address()).await;
    near.config.transport = exec(&[&program, "link-stdio", "--to", &wire.address.to_string()]);
    let peer = nowhere(far.seen_at(&listener));
    let near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    let far_link = soon(listener.accept()).await;
    assert!(near_link.status().congestion_control.starts_with("by "), "{:?}", near_link.status());
    assert!(near_link.warnings().is_empty(), "{:?}", near_link.warnings());
    let poured = tokio::spawn(pour(near_link.open(Label::Disk(0)).await.unwrap(), TOTAL));
    let (_, incoming) = soon(far_link.accept()).await.unwrap();
    let (progress, mut seen) = watch::channel(0);
    let drained = tokio::spawn(drain(incoming, progress));
    for part in 1..=3 {
        soon(seen.wait_for(|bytes| *bytes > part * TOTAL / 4)).await.unwrap();
        wire.cut();
    }
    assert_eq!(soon(drained).await.unwrap(), TOTAL);
    soon(poured).await.unwrap();
    assert!(wire.connections() > 2, "it was cut");
    near_link.close().await;
    assert!(soon(far_link.closed()).await.to_string().contains("it is done"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_fails_is_named_with_its_exit_status_and_its_last_words() {
    let [mut near, far] = hosts();
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let peer = nowhere(far.seen_at(&listener));
    near.config.transport = exec(&["sh", "-c", "echo first >&2; echo no route to far >&2; exit 7"]);
    let error = refused(&near, &listener, &peer).await;
    assert!(matches!(error, LinkError::Unreachable(_)), "{error}");
    let error = error.to_string();
    assert!(error.contains("sh ended with exit status 7"), "{error}");
    assert!(error.contains("first / no route to far"), "{error}");
    near.config.transport = exec(&["sh", "-c", "kill -9 $$"]);
    let error = refused(&near, &listener, &peer).await.to_string();
    assert!(error.contains("was killed by signal 9") && error.contains("said nothing"), "{error}");
    near.config.transport = exec(&["/nonexistent/program"]);
    let error = refused(&near, &listener, &peer).await.to_string();
    assert!(error.contains("cannot start /nonexistent/program"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_says_something_else_is_no_link() {
    let [mut near, far] = hosts();
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    // It stays, or its end would be seen first.
    near.config.transport = exec(&["sh", "-c", "echo Last login: Mon; cat > /dev/null"]);
    let error = refused(&near, &listener, &nowhere(far.seen_at(&listener))).await;
    assert!(matches!(error, LinkError::Garbage(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_are_proved_through_a_program_too() {
    let program = require!(binaries::migrated()).display().to_string();
    let [mut near, far] = hosts();
    let stranger = Host::new("stranger");
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let to = listener.address().to_string();
    near.config.transports.insert("far".to_owned(), exec(&[&program, "link-stdio", "--to", &to]).unwrap());
    let imposter = Peer { key: *stranger.config.keys.spki(), ..nowhere(far.seen_at(&listener)) };
    let error = refused(&near, &listener, &imposter).await;
    assert!(matches!(error, LinkError::WrongKey(_)), "{error}");
    // By the peer's name in the configuration, without a word for this link.
    let link = soon(Link::dial(&near.config, &nowhere(far.seen_at(&listener)))).await;
    assert!(link.is_ok(), "{:?}", link.err());
    soon(listener.accept()).await;
}
