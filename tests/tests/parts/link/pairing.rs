//! Two hosts come to know each other by a one-time token.

use migrated::io::keys::PeerStore;
use migrated::io::link::{Link, LinkListener};
use migrated::link::error::LinkError;
use migrated::link::token::Token;

use super::ends::{Host, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_pair_by_a_token_and_know_each_other() {
    let [printing, given] = [Host::new("printing"), Host::new("given")];
    let printer = LinkListener::bind(printing.config.clone()).await.unwrap();
    let other = LinkListener::bind(given.config.clone()).await.unwrap();
    let token = printer.desk().token_new(None).unwrap();
    let peer = soon(other.desk().pair_with(&token)).await.unwrap();
    assert_eq!((peer.name.as_str(), peer.address), ("printing", printer.address()));
    let known = printing.config.peers.by_name("given").expect("it is stored");
    assert_eq!((known.address, known.key), (other.address(), *given.config.keys.spki()));
    // Both ways, and also after a restart.
    soon(Link::dial(&given.config, &peer)).await.unwrap();
    soon(printer.accept()).await;
    soon(Link::dial(&printing.config, &known)).await.unwrap();
    let again = PeerStore::load(given.scratch.path()).unwrap();
    assert_eq!(again.by_name("printing"), Some(peer));
    // A used one does not work again.
    let third = Host::new("third");
    let third_door = LinkListener::bind(third.config.clone()).await.unwrap();
    let error = soon(third_door.desk().pair_with(&token)).await.unwrap_err();
    assert!(matches!(&error, LinkError::Token(text) if text.contains("used already")), "{error}");
    assert!(printing.config.peers.by_name("third").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_with_another_secret_or_hash_pair_nobody() {
    let [printing, given] = [Host::new("printing"), Host::new("given")];
    let printer = LinkListener::bind(printing.config.clone()).await.unwrap();
    let other = LinkListener::bind(given.config.clone()).await.unwrap();
    let good = Token::parse(&printer.desk().token_new(None).unwrap()).unwrap();
    let guessed = Token { secret: [1; 16], ..good.clone() };
    let error = soon(other.desk().pair_with(&guessed.format())).await.unwrap_err();
    assert!(matches!(&error, LinkError::Token(text) if text.contains("not known here")), "{error}");
    let tampered = Token { key_hash: [1; 32], ..good.clone() };
    let error = soon(other.desk().pair_with(&tampered.format())).await.unwrap_err();
    assert!(matches!(error, LinkError::WrongKey(_)), "{error}");
    let error = soon(other.desk().pair_with(&good.format()[1..])).await.unwrap_err();
    assert!(matches!(error, LinkError::Token(_)), "{error}");
    assert!(printing.config.peers.all().is_empty() && given.config.peers.all().is_empty());
    assert!(soon(other.desk().pair_with(&good.format())).await.is_ok(), "the good one still works");
}
