//! The message that changes a guest's name, and what the answer means.
//!
//! ```text
//! UPDATE  zone          ZONE SOA
//!         prerequisite  NAME A is exactly what was found        RFC 2136, 2.4.2; nothing: 2.4.3
//!         update        delete NAME A OLD, add NAME ttl A NEW   2.5.4, 2.5.1
//!         additional    TSIG                                    RFC 8945
//!
//! or      prerequisite  ZONE SOA is there                       asks for nothing: is the key known?
//! ```
//!
//! Two sites cannot both claim the name: the server compares and changes in one step. An address of the name that is not
//! named stays, and so does everything that is not an address.
//!
//! It refuses to guess: an answer without a valid signature proves nothing, except that a server which does not
//! know our key cannot sign its refusal.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::message_builder::{AnswerBuilder, AuthorityBuilder};
use domain::base::rdata::UnknownRecordData;
use domain::base::{Message, MessageBuilder, Name, Record, Ttl};
use domain::rdata::A;
use domain::rdata::tsig::Time48;
use domain::tsig::{Algorithm, ClientTransaction, Key, KeyName, ValidationError};

use crate::name::Swap;

/// A key that signs updates (TSIG).
#[derive(Clone, PartialEq, Eq)]
pub struct TsigKey {
    /// Its name at the server.
    pub name: String,
    /// What it signs by.
    pub algorithm: KeyAlgorithm,
    /// The secret.
    pub secret: Vec<u8>,
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All but the secret.
        f.debug_struct("TsigKey")
            .field("name", &self.name)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// What a key signs by (RFC 8945, 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// HMAC with SHA-1: for old servers only.
    HmacSha1,
    /// HMAC with SHA-256.
    #[default]
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
}

impl KeyAlgorithm {
    /// All of them, with their names.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("hmac-sha1", Self::HmacSha1),
        ("hmac-sha256", Self::HmacSha256),
        ("hmac-sha384", Self::HmacSha384),
        ("hmac-sha512", Self::HmacSha512),
    ];

    /// The one of this name, however it is spelt.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.trim_end_matches('.');
        Self::NAMES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, known)| known)
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::HmacSha1 => Algorithm::Sha1,
            Self::HmacSha256 => Algorithm::Sha256,
            Self::HmacSha384 => Algorithm::Sha384,
            Self::HmacSha512 => Algorithm::Sha512,
        }
    }
}

/// Where a zone is changed, and by what right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The zone's primary server.
    pub server: SocketAddr,
    /// The zone.
    pub zone: String,
    /// The key that may change it.
    pub key: TsigKey,
}

/// What an update asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing but to be let in.
    Nothing,
    /// Other addresses for a name.
    Addresses {
        /// The name, in full.
        name: String,
        /// Which.
        swap: Swap,
    },
}

/// What the server says against it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// It has no such key. Knot also says so of a key that may not change this (its ACL knows no key then).
    #[error("the server does not know the key {key}, or does not let it change {what} (BADKEY)")]
    UnknownKey {
        /// The key's name.
        key: String,
        /// The name, or the zone.
        what: String,
    },
    /// Its key of this name is another one.
    #[error("the server's key {key} is another one: the signature does not fit (BADSIG)")]
    WrongKey {
        /// The key's name.
        key: String,
    },
    /// Its clock differs from ours by more than 300 seconds.
    #[error("the clocks differ too much: here {here_s} s, at the server {server_s} s; set them right")]
    Clocks {
        /// Our time, in seconds since 1970.
        here_s: u64,
        /// The server's.
        server_s: u64,
    },
    /// It is not the zone's primary server, or the key may not change this zone.
    #[error("the server is not authoritative for {zone}, or {key} may not change it (NOTAUTH)")]
    NotAuthoritative {
        /// The zone.
        zone: String,
        /// The key's name.
        key: String,
    },
    /// The key may not do this.
    #[error("the server refuses that {key} changes {what} (REFUSED)")]
    Refused {
        /// The key's name.
        key: String,
        /// The name, or the zone.
        what: String,
    },
    /// The name leads to something else than was found.
    #[error("{name} does not lead to {} alone any more: somebody else changed it", crate::name::listed(.expected))]
    ChangedByOther {
        /// The guest's name.
        name: String,
        /// What was found.
        expected: Vec<Ipv4Addr>,
    },
    /// The name is not in the zone.
    #[error("{what} is not in the zone {zone} (NOTZONE)")]
    NotInZone {
        /// The guest's name.
        what: String,
        /// The zone.
        zone: String,
    },
    /// Anything else.
    #[error("the server answered {0}")]
    Other(String),
}

/// What an answer is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done.
    Done,
    /// Not done, and why.
    Denied(Denial),
    /// It does not belong to the question, or anybody could have made it: wait for another one.
    Worthless(&'static str),
}

/// What makes an update impossible before it is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUpdate(pub String);

/// A signed update, and what is needed to check the answer.
#[derive(Debug)]
pub struct Signed {
    /// The message as it goes over UDP.
    pub bytes: Vec<u8>,
    transaction: ClientTransaction<Arc<Key>>,
    zone: String,
    key: String,
    wanted: Wanted,
}

impl Authority {
    /// An update as a message with number `id`, signed at `now_s` seconds since 1970.
    pub fn sign(&self, wanted: &Wanted, id: u16, now_s: u64) -> Result<Signed, BadUpdate> {
        let zone = parse_name(&self.zone)?;
        if let Wanted::Addresses { name, .. } = wanted
            && !parse_name(name)?.ends_with(&zone)
        {
            return Err(BadUpdate(format!("{name} is not in the zone {}", self.zone)));
        }
        let TsigKey { name: key_name, algorithm, secret } = &self.key;
        if secret.is_empty() {
            return Err(BadUpdate(format!("the key {key_name} is empty")));
        }
        let parsed = KeyName::from_str(key_name)
            .map_err(|error| BadUpdate(format!("\"{key_name}\" is no name of a key: {error}")))?;
        let key = Key::new(algorithm.algorithm(), secret, parsed, None, None)
            .map_err(|error| BadUpdate(format!("the key {key_name}: {error}")))?;
        let message = compose(&zone, wanted, id, key, now_s);
        let (bytes, transaction) =
            message.ok_or_else(|| BadUpdate("the update does not fit into a message".to_owned()))?;
        let (zone, key) = (self.zone.clone(), key_name.clone());
        Ok(Signed { bytes, transaction, zone, key, wanted: wanted.clone() })
    }
}

type Names = Name<Vec<u8>>;

fn compose(
    zone: &Names,
    wanted: &Wanted,
    id: u16,
    key: Key,
    now_s: u64,
) -> Option<(Vec<u8>, ClientTransaction<Arc<Key>>)> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_opcode(Opcode::UPDATE);
    let mut question = builder.question();
    question.push((zone, Rtype::SOA)).ok()?;
    let mut prerequisite = question.answer();
    let mut change = match wanted {
        Wanted::Nothing => {
            prerequisite.push(Record::new(zone, Class::ANY, Ttl::ZERO, nothing(Rtype::SOA)?)).ok()?;
            prerequisite.authority()
        }
        Wanted::Addresses { name, swap } => {
            let name = parse_name(name).ok()?;
            expect(&mut prerequisite, &name, &swap.expected)?;
            let mut change = prerequisite.authority();
            exchange(&mut change, &name, swap)?;
            change
        }
    }
    .additional();
    let transaction = ClientTransaction::request(Arc::new(key), &mut change, Time48::from_u64(now_s)).ok()?;
    Some((change.finish(), transaction))
}

fn expect(prerequisite: &mut AnswerBuilder<Vec<u8>>, name: &Names, expected: &[Ipv4Addr]) -> Option<()> {
    if expected.is_empty() {
        return prerequisite.push(Record::new(name, Class::NONE, Ttl::ZERO, nothing(Rtype::A)?)).ok();
    }
    let mut each = expected.iter();
    each.try_for_each(|old| prerequisite.push(Record::new(name, Class::IN, Ttl::ZERO, address(*old)))).ok()
}

fn exchange(change: &mut AuthorityBuilder<Vec<u8>>, name: &Names, swap: &Swap) -> Option<()> {
    for old in &swap.delete {
        change.push(Record::new(name, Class::NONE, Ttl::ZERO, address(*old))).ok()?;
    }
    if let Some((new, ttl_s)) = swap.add {
        change.push(Record::new(name, Class::IN, Ttl::from_secs(ttl_s), address(new))).ok()?;
    }
    Some(())
}

fn nothing(kind: Rtype) -> Option<UnknownRecordData<[u8; 0]>> {
    UnknownRecordData::from_octets(kind, []).ok()
}

fn address(address: Ipv4Addr) -> A {
    let [a, b, c, d] = address.octets();
    A::from_octets(a, b, c, d)
}

/// A domain name from its text.
pub fn parse_name(text: &str) -> Result<Names, BadUpdate> {
    Name::from_str(text).map_err(|error| BadUpdate(format!("\"{text}\" is no name: {error}")))
}

impl Signed {
    /// What the server's `answer`, come at `now_s`, says.
    pub fn judge(&self, answer: &[u8], now_s: u64) -> Verdict {
        let Ok(mut message) = Message::from_octets(answer.to_vec()) else {
            return Verdict::Worthless("too short");
        };
        let header = message.header();
        if self.bytes[..2] != answer[..2] || !header.qr() || header.opcode() != Opcode::UPDATE {
            return Verdict::Worthless("not the answer to this question");
        }
        let rcode = header.rcode();
        let (key, what) = (self.key.clone(), self.what());
        match self.transaction.answer(&mut message, Time48::from_u64(now_s)) {
            Ok(()) => self.judge_code(rcode),
            Err(ValidationError::ServerBadKey) => Verdict::Denied(Denial::UnknownKey { key, what }),
            Err(ValidationError::ServerBadSig) => Verdict::Denied(Denial::WrongKey { key }),
            Err(ValidationError::ServerBadTime { client, server }) => {
                let (here_s, server_s) = (u64::from(client), u64::from(server));
                Verdict::Denied(Denial::Clocks { here_s, server_s })
            }
            // Some servers do not sign what they refuse. That may end the attempt, but never count as done.
            Err(ValidationError::ServerUnsigned) if rcode != Rcode::NOERROR => self.judge_code(rcode),
            Err(_) => Verdict::Worthless("its signature is not valid"),
        }
    }

    fn judge_code(&self, rcode: Rcode) -> Verdict {
        let (zone, key, what) = (self.zone.clone(), self.key.clone(), self.what());
        Verdict::Denied(match (rcode, &self.wanted) {
            (Rcode::NOERROR, _) => return Verdict::Done,
            (Rcode::NOTAUTH, _) => Denial::NotAuthoritative { zone, key },
            (Rcode::REFUSED, _) => Denial::Refused { key, what },
            (Rcode::NXRRSET | Rcode::YXRRSET, Wanted::Addresses { name, swap }) => {
                Denial::ChangedByOther { name: name.clone(), expected: swap.expected.clone() }
            }
            (Rcode::NOTZONE, _) => Denial::NotInZone { what, zone },
            _ => Denial::Other(rcode.to_string()),
        })
    }

    /// What was to be changed, for people.
    fn what(&self) -> String {
        match &self.wanted {
            Wanted::Nothing => format!("the zone {}", self.zone),
            Wanted::Addresses { name, .. } => name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Authority, Denial, KeyAlgorithm, Signed, Swap, TsigKey, Verdict, Wanted};
    use domain::base::iana::Rcode;
    use domain::base::{Message, MessageBuilder};
    use domain::rdata::tsig::Time48;
    use domain::tsig::{Algorithm, Key, KeyName, ServerTransaction};
    use std::net::Ipv4Addr;
    use std::str::FromStr;
    use std::sync::Arc;

    const NOW_S: u64 = 1_700_000_000;

    const OLD: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);

    fn authority() -> Authority {
        let (name, secret) = ("mover".to_owned(), b"0123456789abcdef0123456789abcdef".to_vec());
        Authority {
            server: "192.0.2.53:53".parse().unwrap(),
            zone: "lab.test".to_owned(),
            key: TsigKey { name, algorithm: KeyAlgorithm::HmacSha256, secret },
        }
    }

    fn wanted(expected: &[Ipv4Addr]) -> Wanted {
        let add = Some((Ipv4Addr::new(198, 51, 100, 7), 60));
        let swap = Swap { expected: expected.to_vec(), delete: expected.to_vec(), add };
        Wanted::Addresses { name: "web.lab.test".to_owned(), swap }
    }

    fn signed(id: u16) -> Signed {
        authority().sign(&wanted(&[OLD]), id, NOW_S).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_message_has_the_bytes_of_the_protocol() {
        let bytes = signed(0x1234).bytes;
        let name = "03776562036c61620474657374".to_owned() + "00";
        let golden = [
            // Number, UPDATE, one zone, one prerequisite, two updates, one TSIG.
            "1234",
            "2800",
            "0001",
            "0001",
            "0002",
            "0001",
            "036c6162047465737400",
            "0006",
            "0001",
            name.as_str(),
            "0001",
            "0001",
            "00000000",
            "0004",
            "0a010064",
            name.as_str(),
            "0001",
            "00fe",
            "00000000",
            "0004",
            "0a010064",
            name.as_str(),
            "0001",
            "0001",
            "0000003c",
            "0004",
            "c6336407",
            // TSIG of mover: hmac-sha256, the time, 300 s, 32 bytes of signature, the number again.
            "056d6f76657200",
            "00fa",
            "00ff",
            "00000000",
            "003d",
            "0b686d61632d73686132353600",
            "00006553f100",
            "012c",
            "0020",
        ];
        let golden = golden.concat();
        assert_eq!(hex(&bytes)[..golden.len()], golden);
        let rest = &hex(&bytes)[golden.len()..];
        assert_eq!((rest.len(), &rest[64..]), (64 + 12, "123400000000"));
        // The same always: nothing but the arguments goes in.
        assert_eq!(bytes, signed(0x1234).bytes);
        assert_ne!(bytes, authority().sign(&wanted(&[OLD]), 0x1234, NOW_S + 1).unwrap().bytes);
    }

    #[test]
    fn a_name_without_addresses_is_expected_to_have_none() {
        let bytes = authority().sign(&wanted(&[]), 1, NOW_S).unwrap().bytes;
        assert_eq!(hex(&bytes)[..24], *"000128000001000100010001");
        // NAME A, class NONE, no data.
        let name = "03776562036c6162047465737400";
        assert!(hex(&bytes).contains(&format!("{name}000100fe000000000000")), "{}", hex(&bytes));
    }

    #[test]
    fn who_asks_for_nothing_only_says_that_the_zone_is_there() {
        let bytes = authority().sign(&Wanted::Nothing, 1, NOW_S).unwrap().bytes;
        let zone = "036c6162047465737400";
        let golden = format!("000128000001000100000001{zone}00060001{zone}000600ff000000000000");
        assert_eq!(hex(&bytes)[..golden.len()], golden);
    }

    #[test]
    fn what_cannot_be_an_update_is_refused_before_it_is_sent() {
        let of = |name: &str| match wanted(&[OLD]) {
            Wanted::Addresses { swap, .. } => Wanted::Addresses { name: name.to_owned(), swap },
            Wanted::Nothing => unreachable!("it is an address that is wanted"),
        };
        let named = |name: &str| authority().sign(&of(name), 1, NOW_S).unwrap_err().0;
        assert_eq!(named("web.lab.example"), "web.lab.example is not in the zone lab.test");
        assert!(named("web..test").starts_with("\"web..test\" is no name"));
        let keyed =
            |key: TsigKey| Authority { key, ..authority() }.sign(&Wanted::Nothing, 1, NOW_S).unwrap_err().0;
        assert_eq!(keyed(TsigKey { secret: Vec::new(), ..authority().key }), "the key mover is empty");
        assert!(keyed(TsigKey { name: "a b..".to_owned(), ..authority().key }).contains("no name of a key"));
    }

    #[test]
    fn the_secret_is_never_printed() {
        let told = format!("{:?}", authority());
        assert!(told.contains("mover") && !told.contains("48, 49") && !told.contains("0123"), "{told}");
    }

    #[test]
    fn an_algorithm_is_known_by_its_name() {
        assert_eq!(KeyAlgorithm::of_name("HMAC-SHA256."), Some(KeyAlgorithm::HmacSha256));
        assert_eq!(KeyAlgorithm::of_name("hmac-sha512"), Some(KeyAlgorithm::HmacSha512));
        assert_eq!(KeyAlgorithm::of_name("hmac-md5"), None);
    }

    /// The answer of a server with `secret`, `skew_s` seconds ahead.
    fn answer(to: &[u8], secret: &[u8], rcode: Rcode, skew_s: u64) -> Vec<u8> {
        let key_name = KeyName::from_str("mover").unwrap();
        let key = Arc::new(Key::new(Algorithm::Sha256, secret, key_name, None, None).unwrap());
        let mut request = Message::from_octets(to.to_vec()).unwrap();
        let now = Time48::from_u64(NOW_S + skew_s);
        let builder = MessageBuilder::new_vec();
        match ServerTransaction::request(&key, &mut request, now) {
            Ok(transaction) => {
                let mut answer = builder.start_answer(&request, rcode).unwrap().additional();
                transaction.unwrap().answer(&mut answer, now).unwrap();
                answer.finish()
            }
            // Looking for the signature has taken it out of the request.
            Err(error) => {
                error.build_message(&Message::from_octets(to.to_vec()).unwrap(), builder).unwrap().finish()
            }
        }
    }

    #[test]
    fn every_refusal_has_its_own_words() {
        let signed = signed(7);
        let secret = authority().key.secret;
        let verdict = |rcode| signed.judge(&answer(&signed.bytes, &secret, rcode, 0), NOW_S);
        assert_eq!(verdict(Rcode::NOERROR), Verdict::Done);
        let words = |rcode| match verdict(rcode) {
            Verdict::Denied(denial) => denial.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(
            words(Rcode::NXRRSET)
                .contains("does not lead to 10.1.0.100 alone any more: somebody else changed it")
        );
        assert!(words(Rcode::NOTAUTH).contains("not authoritative for lab.test"));
        assert!(words(Rcode::REFUSED).contains("refuses that mover changes web.lab.test"));
        assert!(words(Rcode::NOTZONE).contains("not in the zone"));
        assert_eq!(words(Rcode::SERVFAIL), "the server answered SERVFAIL");
    }

    #[test]
    fn keys_and_clocks_that_do_not_fit_are_told_apart() {
        let signed = signed(7);
        // A server without the right key cannot sign: the error stands before the last two bytes of its answer.
        let mut unsigned = answer(&signed.bytes, b"another secret", Rcode::NOERROR, 0);
        let error_at = unsigned.len() - 3;
        unsigned[error_at] = 16;
        assert_eq!(
            signed.judge(&unsigned, NOW_S),
            Verdict::Denied(Denial::WrongKey { key: "mover".to_owned() })
        );
        unsigned[error_at] = 17;
        assert_eq!(
            signed.judge(&unsigned, NOW_S),
            Verdict::Denied(Denial::UnknownKey { key: "mover".to_owned(), what: "web.lab.test".to_owned() })
        );
        let late = signed.judge(&answer(&signed.bytes, &authority().key.secret, Rcode::NOERROR, 1000), NOW_S);
        assert_eq!(late, Verdict::Denied(Denial::Clocks { here_s: NOW_S, server_s: NOW_S + 1000 }));
    }

    #[test]
    fn an_answer_that_anybody_could_have_made_is_never_taken_for_done() {
        let signed = signed(7);
        let good = answer(&signed.bytes, &authority().key.secret, Rcode::NOERROR, 0);
        for len in 0..good.len() {
            assert_ne!(signed.judge(&good[..len], NOW_S), Verdict::Done, "{len}");
        }
        // The class and the time to live of the TSIG record itself are constants that nobody reads.
        for at in (0..35).chain(41..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_ne!(signed.judge(&bad, NOW_S), Verdict::Done, "{at}");
        }
        let mut unsigned = good[..12].to_vec();
        unsigned[4..12].fill(0);
        assert_eq!(signed.judge(&unsigned, NOW_S), Verdict::Worthless("its signature is not valid"));
    }
}
