//! Pairing: two hosts learn each other's key by a token that one prints and the other is given, once.
//!
//! ```text
//! printed the token (listener)                       was given it (dialler)
//!        │ ◄──── TLS: the listener's key has the token's hash ──── │
//!        │ ◄──────────────────────────────────────── hello (pair) ─│
//!        │ ─ welcome ────────────────────────────────────────────► │
//!        │ ◄── pair: HMAC(secret; this connection, both keys), reach│
//!        │ stores the dialler                                      │
//!        │ ─ paired: reach ──────────────────────────────────────► │ stores the listener
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use super::keys::{Keys, Peer, PeerStore, Spki, fingerprint};
use super::tls::Pin;
use super::tls::greeting::{Dial, Secured, refuse};
use crate::config::BBR;
use crate::link::error::LinkError;
use crate::link::hello::{
    ADDRESS_BYTES_MAX, Hello, Message, NAME_BYTES_MAX, Pair, Purpose, Reach, VERSION_MAX, VERSION_MIN,
};
use crate::link::token::{Book, Token, hash_key, prove, statement};
use crate::transport::Transport;

/// How long a pairing may take.
const PAIR_WITHIN: Duration = Duration::from_secs(10);

/// Where this host pairs. A clone is the same desk.
#[derive(Clone)]
pub struct Desk {
    keys: Keys,
    peers: PeerStore,
    reach: Reach,
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    start: Instant,
}

impl Desk {
    /// For a host that is reached at these addresses.
    pub fn new(
        name: String,
        keys: &Keys,
        peers: PeerStore,
        address: SocketAddr,
        data_addresses: &[SocketAddr],
    ) -> Self {
        let reach = Reach { name, address: address.to_string(), data_addresses: told(data_addresses) };
        Self { keys: keys.clone(), peers, reach, address, book: Arc::default(), start: Instant::now() }
    }

    /// A new token. `advertised`: where the other host reaches this one, if that is not where it listens.
    pub fn token_new(&self, advertised: Option<SocketAddr>) -> Result<String, LinkError> {
        let address = advertised.unwrap_or(self.address);
        if address.ip().is_unspecified() {
            return Err(LinkError::Local(format!(
                "this host listens on {address}, which says nothing of how it is reached; name an address"
            )));
        }
        let mut secret = [0; 16];
        SystemRandom::new().fill(&mut secret).expect("the system has randomness");
        self.locked().add(secret, self.start.elapsed());
        tracing::info!("a pairing token was printed; it works once, for ten minutes");
        Ok(Token { name: self.reach.name.clone(), address, secret, key_hash: hash_key(self.keys.spki()) }
            .format())
    }

    /// Pairs with the host that printed the token.
    pub async fn pair_with(&self, token: &str) -> Result<Peer, LinkError> {
        let token = Token::parse(token).map_err(|error| LinkError::Token(error.to_string()))?;
        let dial = Dial {
            keys: &self.keys,
            pin: Pin::Hash(token.key_hash),
            transport: &Transport::Tcp,
            congestion_control: BBR,
            to: token.address,
            from: None,
            whom: &token.name,
            within: PAIR_WITHIN,
        };
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            purpose: Purpose::Pair,
            link: [0; 16],
            name: self.reach.name.clone(),
        };
        let (mut secured, _) = dial.greet(Message::Hello(hello)).await?;
        let said = statement(&secured.exporter()?, self.keys.spki(), &secured.peer_key);
        let pair = Pair { proof: prove(&token.secret, &said), reach: self.reach.clone() };
        let hung_up = |error| LinkError::Unreachable(format!("{} hung up: {error}", token.address));
        secured.say(&Message::Pair(pair)).await.map_err(hung_up)?;
        let answer = tokio::time::timeout(PAIR_WITHIN, secured.hear()).await;
        match answer.map_err(|_| LinkError::TimedOut(format!("{} does not answer", token.address)))?? {
            Message::Paired(reach) => self.store(&reach, Some(token.address), &secured),
            Message::Refused(refused) => Err(refused.into()),
            other => Err(LinkError::Garbage(format!("{} answers with {other:?}", token.address))),
        }
    }

    /// The listener's part, after a hello that was judged.
    pub(super) async fn serve(&self, mut secured: Secured, welcome: Message) -> Result<(), LinkError> {
        let address = secured.address;
        let hung_up = move |error| LinkError::Unreachable(format!("{address} hung up: {error}"));
        secured.say(&welcome).await.map_err(hung_up)?;
        let paired = match secured.hear().await? {
            Message::Pair(pair) => self.admit(&pair, &secured),
            other => Err(LinkError::Garbage(format!("{address} pairs with {other:?}"))),
        };
        match paired {
            Ok(()) => secured.say(&Message::Paired(self.reach.clone())).await.map_err(hung_up),
            Err(error) => {
                refuse(&mut secured.stream, error.refusal()).await;
                Err(error)
            }
        }
    }

    fn admit(&self, pair: &Pair, secured: &Secured) -> Result<(), LinkError> {
        let said = statement(&secured.exporter()?, &secured.peer_key, self.keys.spki());
        let redeemed = self.locked().redeem(&pair.proof, &said, self.start.elapsed());
        redeemed.map_err(|refused| LinkError::Token(refused.to_string()))?;
        self.store(&pair.reach, None, secured).map(|_| ())
    }

    /// Stores the other side. `dialled`: where it was reached, which is where it will be.
    fn store(
        &self,
        reach: &Reach,
        dialled: Option<SocketAddr>,
        secured: &Secured,
    ) -> Result<Peer, LinkError> {
        let peer = read_reach(reach, dialled, secured.address.ip(), secured.peer_key)?;
        if peer.name == self.reach.name {
            return Err(LinkError::Refused(format!("both hosts are named {}; rename one", peer.name)));
        }
        self.peers.put(peer.clone()).map_err(|error| LinkError::Local(error.to_string()))?;
        tracing::info!(peer = peer.name, address = %peer.address, key = fingerprint(&peer.key), "paired");
        Ok(peer)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().expect("nobody panics with the book in hand")
    }
}

/// What a peer says of itself, made into what is stored.
fn read_reach(
    reach: &Reach,
    dialled: Option<SocketAddr>,
    seen: IpAddr,
    key: Spki,
) -> Result<Peer, LinkError> {
    let bad = |what: String| LinkError::Refused(what);
    let good_name = !reach.name.is_empty()
        && reach.name.len() <= NAME_BYTES_MAX
        && reach.name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    if !good_name {
        return Err(bad(format!("{:?} is not a host's name: letters, digits, - _ . only", reach.name)));
    }
    let read = |text: &str| -> Result<SocketAddr, LinkError> {
        let address: SocketAddr =
            text.parse().map_err(|_| bad(format!("{text:?} is not an address and a port")))?;
        let ip = if address.ip().is_unspecified() { seen } else { address.ip() };
        Ok(SocketAddr::new(ip, address.port()))
    };
    let address = dialled.map_or_else(|| read(&reach.address), Ok)?;
    let texts = reach.data_addresses.split(',').filter(|text| !text.is_empty());
    let data_addresses = texts.map(read).collect::<Result<_, _>>()?;
    Ok(Peer { name: reach.name.clone(), address, data_addresses, key })
}

/// As many data addresses as another host can be told when it is paired.
fn told(addresses: &[SocketAddr]) -> String {
    let mut text = String::new();
    for address in addresses.iter().map(SocketAddr::to_string) {
        if text.len() + 1 + address.len() > ADDRESS_BYTES_MAX {
            tracing::warn!(
                address,
                "not told to hosts that are paired: too many; they can be given it in their [addresses]"
            );
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text += &address;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_addresses_are_told_as_far_as_they_fit_and_read_again() {
        let addresses: Vec<SocketAddr> =
            (1..=4).map(|last| SocketAddr::from(([198, 51, 100, last], 7071))).collect();
        let text = told(&addresses);
        assert!(text.len() <= ADDRESS_BYTES_MAX && text.starts_with("198.51.100.1:7071,"), "{text}");
        let reach = Reach { name: "far".into(), address: "0.0.0.0:7070".into(), data_addresses: text };
        let seen = "192.0.2.5".parse().unwrap();
        let peer = read_reach(&reach, None, seen, [0; 44]).unwrap();
        assert_eq!(peer.address, "192.0.2.5:7070".parse().unwrap());
        assert_eq!(peer.data_addresses, addresses[..3]);
        let none = Reach { data_addresses: told(&[]), ..reach.clone() };
        assert!(read_reach(&none, None, seen, [0; 44]).unwrap().data_addresses.is_empty());
        let bad = Reach { data_addresses: "198.51.100.1:7071,here".into(), ..reach };
        assert!(read_reach(&bad, None, seen, [0; 44]).is_err());
    }
}
