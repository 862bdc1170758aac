//! A pairing token: what one host prints and the other is given, once.
//!
//! ```text
//! site-a@192.0.2.1:4801/mfzq…  =  name and address of the host that printed it
//!                                 base32 of: secret (16) | SHA-256 of its key (32) | CRC-32 of all of it (4)
//! ```
//!
//! The hash pins the host that is dialled, the secret proves the one that dials. The checksum only tells a slip of
//! the hand from an attack. The [`Book`] knows which tokens are open: each lives ten minutes and works once.

use std::net::SocketAddr;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use ring::{digest, hmac};
use thiserror::Error;

/// How long a token works.
pub const LIFETIME: Duration = Duration::from_secs(600);
/// Most tokens that are remembered, open or not; the oldest is forgotten.
pub const TOKENS_MAX: usize = 16;

/// A one-time secret.
pub type Secret = [u8; 16];

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The name of the host that printed it.
    pub name: String,
    /// Where the host that printed it is reached.
    pub address: SocketAddr,
    /// The one-time secret.
    pub secret: Secret,
    /// SHA-256 of the public key of the host that printed it, as TLS shows it.
    pub key_hash: [u8; 32],
}

/// Why a text is not a token.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotAToken {
    /// Not of the form.
    #[error("a token looks like site-a@192.0.2.1:4801/… ; take the whole of what `migrated pair` printed")]
    Form,
    /// The address is none.
    #[error("`{0}` in the token is not an address and a port")]
    Address(String),
    /// It was changed or cut on its way.
    #[error("the token is mistyped or cut off (its checksum does not match)")]
    Checksum,
}

impl Token {
    /// As it is printed.
    pub fn format(&self) -> String {
        let mut bytes = [self.secret.as_slice(), &self.key_hash].concat();
        bytes.extend_from_slice(&self.checksum().to_le_bytes());
        format!("{}@{}/{}", self.name, self.address, BASE32_NOPAD.encode(&bytes).to_lowercase())
    }

    /// Reads what was printed. Case of the code and white space around it do not matter.
    pub fn parse(text: &str) -> Result<Self, NotAToken> {
        let (place, code) = text.trim().split_once('/').ok_or(NotAToken::Form)?;
        let (name, address) = place.split_once('@').ok_or(NotAToken::Form)?;
        let address = address.parse().map_err(|_| NotAToken::Address(address.to_owned()))?;
        let bytes = BASE32_NOPAD.decode(code.to_uppercase().as_bytes()).map_err(|_| NotAToken::Checksum)?;
        let (secret, rest) = bytes.split_first_chunk().ok_or(NotAToken::Checksum)?;
        let (key_hash, rest) = rest.split_first_chunk().ok_or(NotAToken::Checksum)?;
        let token = Self { name: name.to_owned(), address, secret: *secret, key_hash: *key_hash };
        if rest == token.checksum().to_le_bytes() { Ok(token) } else { Err(NotAToken::Checksum) }
    }

    fn checksum(&self) -> u32 {
        let text = format!("{}@{}", self.name, self.address);
        crc32fast::hash(&[text.as_bytes(), &self.secret, &self.key_hash].concat())
    }
}

/// SHA-256 of a key as TLS shows it.
pub fn hash_key(key: &[u8]) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, key);
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// What a proof is about: this very connection and both keys, in this order.
pub fn statement(exporter: &[u8; 32], dialler_key: &[u8], listener_key: &[u8]) -> Vec<u8> {
    [exporter, dialler_key, listener_key].concat()
}

/// Proof that the dialler holds the secret.
pub fn prove(secret: &Secret, statement: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), statement);
    tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
}

/// Why a proof was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenRefused {
    /// It fits no token that is remembered.
    #[error("the token is not known here; print a new one with `migrated pair`")]
    Unknown,
    /// Its time is over.
    #[error("the token is older than ten minutes; print a new one with `migrated pair`")]
    Expired,
    /// It worked already.
    #[error("the token was used already; print a new one with `migrated pair`")]
    Used,
}

#[derive(Debug)]
struct Page {
    secret: Secret,
    expires_at: Duration,
    used: bool,
}

/// The tokens of this host.
#[derive(Debug, Default)]
pub struct Book {
    pages: Vec<Page>,
}

impl Book {
    /// A new token was printed.
    pub fn add(&mut self, secret: Secret, now: Duration) {
        if self.pages.len() >= TOKENS_MAX {
            self.pages.remove(0);
        }
        self.pages.push(Page { secret, expires_at: now + LIFETIME, used: false });
    }

    /// Uses the token whose secret proves `statement` by `proof`.
    pub fn redeem(&mut self, proof: &[u8; 32], statement: &[u8], now: Duration) -> Result<(), TokenRefused> {
        let fits = |page: &Page| {
            hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &page.secret), statement, proof).is_ok()
        };
        let Some(at) = self.pages.iter().position(fits) else {
            return Err(TokenRefused::Unknown);
        };
        let page = &mut self.pages[at];
        if page.used {
            return Err(TokenRefused::Used);
        }
        if now >= page.expires_at {
            return Err(TokenRefused::Expired);
        }
        page.used = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Book, LIFETIME, NotAToken, TOKENS_MAX, Token, TokenRefused, hash_key, prove, statement};

    fn token() -> Token {
        Token {
            name: "site-a".into(),
            address: "192.0.2.1:4801".parse().unwrap(),
            secret: [7; 16],
            key_hash: hash_key(b"key"),
        }
    }

    fn said() -> Vec<u8> {
        statement(&[9; 32], b"dialler", b"listener")
    }

    fn redeem(book: &mut Book, secret: u8, now: Duration) -> Result<(), TokenRefused> {
        book.redeem(&prove(&[secret; 16], &said()), &said(), now)
    }

    #[test]
    fn a_token_is_read_as_it_was_printed() {
        let printed = token().format();
        assert!(printed.starts_with("site-a@192.0.2.1:4801/a4dqobyha4dqobyha4dqobyh"), "{printed}");
        assert_eq!(Token::parse(&printed), Ok(token()));
        let (place, code) = printed.split_once('/').unwrap();
        assert_eq!(Token::parse(&format!("  {place}/{}\n", code.to_uppercase())), Ok(token()));
        let six = Token { address: "[2001:db8::1]:4801".parse().unwrap(), ..token() };
        assert_eq!(Token::parse(&six.format()), Ok(six));
    }

    #[test]
    fn every_slip_of_the_hand_is_noticed() {
        let printed = token().format();
        for at in 0..printed.len() {
            let mut bytes = printed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'2' { b'3' } else { b'2' };
            let slipped = String::from_utf8(bytes).unwrap();
            assert!(Token::parse(&slipped).is_err(), "{slipped}");
            assert!(Token::parse(&printed[..at]).is_err());
        }
        assert_eq!(Token::parse("nonsense"), Err(NotAToken::Form));
        assert_eq!(Token::parse("a@host/abc"), Err(NotAToken::Address("host".into())));
    }

    #[test]
    fn a_token_works_once() {
        let mut book = Book::default();
        book.add([1; 16], Duration::ZERO);
        book.add([2; 16], Duration::ZERO);
        assert_eq!(redeem(&mut book, 2, LIFETIME / 2), Ok(()));
        assert_eq!(redeem(&mut book, 2, LIFETIME / 2), Err(TokenRefused::Used));
        assert_eq!(redeem(&mut book, 1, LIFETIME / 2), Ok(()));
    }

    #[test]
    fn a_token_grows_old() {
        let mut book = Book::default();
        book.add([1; 16], Duration::ZERO);
        assert_eq!(redeem(&mut book, 1, LIFETIME), Err(TokenRefused::Expired));
    }

    #[test]
    fn a_wrong_secret_another_connection_and_another_key_are_refused() {
        let mut book = Book::default();
        book.add([1; 16], Duration::ZERO);
        for wrong in [
            prove(&[2; 16], &said()),
            prove(&[1; 16], &statement(&[8; 32], b"dialler", b"listener")),
            prove(&[1; 16], &statement(&[9; 32], b"other", b"listener")),
            prove(&[1; 16], &statement(&[9; 32], b"dialler", b"other")),
        ] {
            assert_eq!(book.redeem(&wrong, &said(), Duration::ZERO), Err(TokenRefused::Unknown));
        }
        assert_eq!(redeem(&mut book, 1, Duration::ZERO), Ok(()));
    }

    /// Nobody guesses 128 bits; but anybody can send wrong proofs, and would take the token from whom it was printed for.
    #[test]
    fn wrong_proofs_of_strangers_change_nothing_and_old_pages_are_forgotten() {
        let mut book = Book::default();
        book.add([1; 16], Duration::ZERO);
        (0..1000).for_each(|_| assert!(book.redeem(&[0; 32], &said(), Duration::ZERO).is_err()));
        assert_eq!(redeem(&mut book, 1, Duration::ZERO), Ok(()));
        (0..TOKENS_MAX as u8).for_each(|n| book.add([n + 100; 16], Duration::ZERO));
        assert_eq!(redeem(&mut book, 1, Duration::ZERO), Err(TokenRefused::Unknown));
    }
}
