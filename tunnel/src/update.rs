//! The message that changes the guest's name, and what the answer means.
//!
//! ```text
//! UPDATE  zone          ZONE SOA
//!         prerequisite  NAME A is exactly OLD          RFC 2136, 2.4.2: nobody else has changed it
//!         update        delete all of NAME A, add NAME ttl A NEW
//!         additional    TSIG, hmac-sha256              RFC 8945
//! ```
//!
//! Two sites cannot both claim the name: the server compares and changes in one step.
//!
//! It refuses to guess: an answer without a valid signature proves nothing, except that a server which does not
//! know our key cannot sign its refusal.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::rdata::UnknownRecordData;
use domain::base::{Message, MessageBuilder, Name, Record, Ttl};
use domain::rdata::tsig::Time48;
use domain::rdata::{A, Soa};
use domain::tsig::{Algorithm, ClientTransaction, Key, KeyName, ValidationError};

/// A name's address, and who may change it.
#[derive(Clone, PartialEq, Eq)]
pub struct NameUpdate {
    /// The zone's primary server.
    pub server: SocketAddr,
    /// The zone.
    pub zone: String,
    /// The name, in full.
    pub name: String,
    /// The key's name at the server.
    pub key_name: String,
    /// The key, for hmac-sha256.
    pub key_secret: Vec<u8>,
    /// How long resolvers may remember the new address.
    pub ttl_s: u32,
    /// What the name must stand for now; none: whatever it stands for.
    pub old: Option<Ipv4Addr>,
    /// What it is to stand for.
    pub new: Ipv4Addr,
}

impl fmt::Debug for NameUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All but the secret.
        f.debug_struct("NameUpdate")
            .field("server", &self.server)
            .field("zone", &self.zone)
            .field("name", &self.name)
            .field("key_name", &self.key_name)
            .field("ttl_s", &self.ttl_s)
            .field("old", &self.old)
            .field("new", &self.new)
            .finish_non_exhaustive()
    }
}

/// What the server says against it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// It has no such key.
    #[error("the server does not know the key {key}")]
    UnknownKey {
        /// The key's name.
        key: String,
    },
    /// Its key of this name is another one.
    #[error("the server's key {key} is another one: the signature does not fit")]
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
    #[error("the server refuses that {key} changes {name} (REFUSED)")]
    Refused {
        /// The key's name.
        key: String,
        /// The guest's name.
        name: String,
    },
    /// The name stands for something else than expected.
    #[error("{name} does not stand for {expected} alone: somebody else changed it (NXRRSET)")]
    ChangedByOther {
        /// The guest's name.
        name: String,
        /// What it should have stood for.
        expected: Ipv4Addr,
    },
    /// The name is not in the zone.
    #[error("{name} is not in the zone {zone} (NOTZONE)")]
    NotInZone {
        /// The guest's name.
        name: String,
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
    update: NameUpdate,
}

impl NameUpdate {
    /// The update as a message with number `id`, signed at `now_s` seconds since 1970.
    pub fn sign(&self, id: u16, now_s: u64) -> Result<Signed, BadUpdate> {
        let (zone, name) = (parse_name(&self.zone)?, parse_name(&self.name)?);
        if !name.ends_with(&zone) {
            return Err(BadUpdate(format!("{} is not in the zone {}", self.name, self.zone)));
        }
        if self.key_secret.is_empty() {
            return Err(BadUpdate(format!("the key {} is empty", self.key_name)));
        }
        let key_name = KeyName::from_str(&self.key_name)
            .map_err(|error| BadUpdate(format!("\"{}\" is no name of a key: {error}", self.key_name)))?;
        let key = Key::new(Algorithm::Sha256, &self.key_secret, key_name, None, None)
            .map_err(|error| BadUpdate(format!("the key {}: {error}", self.key_name)))?;
        self.compose(id, now_s, zone, name, key)
            .ok_or_else(|| BadUpdate(format!("the update of {} does not fit into a message", self.name)))
    }

    fn compose(
        &self,
        id: u16,
        now_s: u64,
        zone: Name<Vec<u8>>,
        name: Name<Vec<u8>>,
        key: Key,
    ) -> Option<Signed> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(id);
        builder.header_mut().set_opcode(Opcode::UPDATE);
        let mut question = builder.question();
        question.push((&zone, Rtype::SOA)).ok()?;
        let mut prerequisite = question.answer();
        if let Some(old) = self.old {
            prerequisite.push(Record::new(&name, Class::IN, Ttl::ZERO, address(old))).ok()?;
        }
        let mut change = prerequisite.authority();
        let nothing = UnknownRecordData::from_octets(Rtype::A, [0u8; 0]).ok()?;
        change.push(Record::new(&name, Class::ANY, Ttl::ZERO, nothing)).ok()?;
        change.push(Record::new(&name, Class::IN, Ttl::from_secs(self.ttl_s), address(self.new))).ok()?;
        let mut additional = change.additional();
        let transaction =
            ClientTransaction::request(Arc::new(key), &mut additional, Time48::from_u64(now_s)).ok()?;
        Some(Signed { bytes: additional.finish(), transaction, update: self.clone() })
    }
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
        let NameUpdate { key_name, .. } = &self.update;
        let key = key_name.clone();
        match self.transaction.answer(&mut message, Time48::from_u64(now_s)) {
            Ok(()) => self.judge_code(rcode),
            Err(ValidationError::ServerBadKey) => Verdict::Denied(Denial::UnknownKey { key }),
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
        let NameUpdate { zone, name, key_name: key, old, .. } = self.update.clone();
        Verdict::Denied(match (rcode, old) {
            (Rcode::NOERROR, _) => return Verdict::Done,
            (Rcode::NOTAUTH, _) => Denial::NotAuthoritative { zone, key },
            (Rcode::REFUSED, _) => Denial::Refused { key, name },
            (Rcode::NXRRSET, Some(expected)) => Denial::ChangedByOther { name, expected },
            (Rcode::NOTZONE, _) => Denial::NotInZone { name, zone },
            _ => Denial::Other(rcode.to_string()),
        })
    }
}

/// The question what `name` stands for.
pub fn ask_address(id: u16, name: &str) -> Result<Vec<u8>, BadUpdate> {
    ask(id, name, Rtype::A)
}

/// The question for the zone's serial number.
pub fn ask_serial(id: u16, zone: &str) -> Result<Vec<u8>, BadUpdate> {
    ask(id, zone, Rtype::SOA)
}

/// The addresses and their time to live in an answer; none where it is not the answer to `question`.
pub fn read_addresses(question: &[u8], answer: &[u8]) -> Option<Vec<(Ipv4Addr, u32)>> {
    let message = answer_to(question, answer)?;
    let found = message.answer().ok()?.limit_to_in::<A>().filter_map(Result::ok);
    Some(
        found.map(|record| (Ipv4Addr::from(record.data().addr().octets()), record.ttl().as_secs())).collect(),
    )
}

/// The serial number in an answer.
pub fn read_serial(question: &[u8], answer: &[u8]) -> Option<u32> {
    let message = answer_to(question, answer)?;
    let found = message.answer().ok()?.limit_to_in::<Soa<_>>().find_map(Result::ok);
    found.map(|record| record.data().serial().into_int())
}

fn ask(id: u16, name: &str, kind: Rtype) -> Result<Vec<u8>, BadUpdate> {
    let name = parse_name(name)?;
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    let mut question = builder.question();
    question.push((&name, kind)).map_err(|error| BadUpdate(error.to_string()))?;
    Ok(question.finish())
}

fn answer_to(question: &[u8], answer: &[u8]) -> Option<Message<Vec<u8>>> {
    let (question, answer) =
        (Message::from_octets(question.to_vec()).ok()?, Message::from_octets(answer.to_vec()).ok()?);
    // A name that is gone is an answer too, with nothing in it.
    let is_told = [Rcode::NOERROR, Rcode::NXDOMAIN].contains(&answer.header().rcode());
    (answer.is_answer(&question) && is_told).then_some(answer)
}

fn address(address: Ipv4Addr) -> A {
    let [a, b, c, d] = address.octets();
    A::from_octets(a, b, c, d)
}

fn parse_name(text: &str) -> Result<Name<Vec<u8>>, BadUpdate> {
    Name::from_str(text).map_err(|error| BadUpdate(format!("\"{text}\" is no name: {error}")))
}

#[cfg(test)]
mod tests {
    use super::{Denial, NameUpdate, Verdict, ask_address, read_addresses};
    use domain::base::iana::Rcode;
    use domain::base::{Message, MessageBuilder};
    use domain::rdata::tsig::Time48;
    use domain::tsig::{Algorithm, Key, KeyName, ServerTransaction};
    use std::net::Ipv4Addr;
    use std::str::FromStr;
    use std::sync::Arc;

    const NOW_S: u64 = 1_700_000_000;

    fn update() -> NameUpdate {
        NameUpdate {
            server: "192.0.2.53:53".parse().unwrap(),
            zone: "lab.test".to_owned(),
            name: "web.lab.test".to_owned(),
            key_name: "mover".to_owned(),
            key_secret: b"0123456789abcdef0123456789abcdef".to_vec(),
            ttl_s: 60,
            old: Some(Ipv4Addr::new(10, 1, 0, 100)),
            new: Ipv4Addr::new(198, 51, 100, 7),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_message_has_the_bytes_of_the_protocol() {
        let bytes = update().sign(0x1234, NOW_S).unwrap().bytes;
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
            "00ff",
            "00000000",
            "0000",
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
        assert_eq!(bytes, update().sign(0x1234, NOW_S).unwrap().bytes);
        assert_ne!(bytes, update().sign(0x1234, NOW_S + 1).unwrap().bytes);
    }

    #[test]
    fn without_an_old_address_nothing_is_a_prerequisite() {
        let bytes = NameUpdate { old: None, ..update() }.sign(1, NOW_S).unwrap().bytes;
        assert_eq!(hex(&bytes)[..24], *"000128000001000000020001");
    }

    #[test]
    fn what_cannot_be_an_update_is_refused_before_it_is_sent() {
        let refused = |bad: NameUpdate| bad.sign(1, NOW_S).unwrap_err().0;
        assert_eq!(
            refused(NameUpdate { name: "web.lab.example".to_owned(), ..update() }),
            "web.lab.example is not in the zone lab.test"
        );
        assert!(
            refused(NameUpdate { name: "web..test".to_owned(), ..update() })
                .starts_with("\"web..test\" is no name")
        );
        assert!(refused(NameUpdate { key_secret: Vec::new(), ..update() }).contains("mover is empty"));
        assert!(
            refused(NameUpdate { key_name: "a b..".to_owned(), ..update() }).contains("no name of a key")
        );
    }

    #[test]
    fn the_secret_is_never_printed() {
        let told = format!("{:?}", update());
        assert!(told.contains("mover") && !told.contains("48, 49") && !told.contains("0123"), "{told}");
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
        let signed = update().sign(7, NOW_S).unwrap();
        let secret = update().key_secret;
        let verdict = |rcode| signed.judge(&answer(&signed.bytes, &secret, rcode, 0), NOW_S);
        assert_eq!(verdict(Rcode::NOERROR), Verdict::Done);
        let words = |rcode| match verdict(rcode) {
            Verdict::Denied(denial) => denial.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(words(Rcode::NXRRSET).contains("somebody else changed it"));
        assert!(words(Rcode::NOTAUTH).contains("not authoritative for lab.test"));
        assert!(words(Rcode::REFUSED).contains("refuses that mover changes web.lab.test"));
        assert!(words(Rcode::NOTZONE).contains("not in the zone"));
        assert_eq!(words(Rcode::SERVFAIL), "the server answered SERVFAIL");
    }

    #[test]
    fn keys_and_clocks_that_do_not_fit_are_told_apart() {
        let signed = update().sign(7, NOW_S).unwrap();
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
            Verdict::Denied(Denial::UnknownKey { key: "mover".to_owned() })
        );
        let late = signed.judge(&answer(&signed.bytes, &update().key_secret, Rcode::NOERROR, 1000), NOW_S);
        assert_eq!(late, Verdict::Denied(Denial::Clocks { here_s: NOW_S, server_s: NOW_S + 1000 }));
    }

    #[test]
    fn an_answer_that_anybody_could_have_made_is_never_taken_for_done() {
        let signed = update().sign(7, NOW_S).unwrap();
        let good = answer(&signed.bytes, &update().key_secret, Rcode::NOERROR, 0);
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

    #[test]
    fn only_the_answer_to_the_question_is_read() {
        let question = ask_address(9, "web.lab.test").unwrap();
        let mut builder = MessageBuilder::new_vec()
            .start_answer(&Message::from_octets(question.clone()).unwrap(), Rcode::NOERROR)
            .unwrap();
        let name = domain::base::Name::<Vec<u8>>::from_str("web.lab.test").unwrap();
        builder.push((&name, 60, domain::rdata::A::from_octets(10, 1, 0, 100))).unwrap();
        let answer = builder.finish();
        assert_eq!(read_addresses(&question, &answer), Some(vec![(Ipv4Addr::new(10, 1, 0, 100), 60)]));
        assert_eq!(read_addresses(&ask_address(8, "web.lab.test").unwrap(), &answer), None);
        assert_eq!(read_addresses(&ask_address(9, "www.lab.test").unwrap(), &answer), None);
    }
}
