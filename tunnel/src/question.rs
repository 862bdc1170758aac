//! Questions to a zone's primary server, and its answers: what a name leads to, and the zone's serial number.
//!
//! It refuses what is not the answer to the question, and an answer that was cut off: a set of addresses is only worth
//! something whole.

use std::net::Ipv4Addr;

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::{A, Cname, Soa};

use crate::name::Found;
use crate::update::{BadUpdate, parse_name};

/// What bytes are to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard<T> {
    /// Its answer.
    Answer(T),
    /// Its answer did not fit, and has to be fetched by TCP.
    Cut,
    /// The server does not say, by this code.
    Untold(Rcode),
    /// Nothing.
    Other,
}

/// The question what `name` leads to.
pub fn ask_address(id: u16, name: &str) -> Result<Vec<u8>, BadUpdate> {
    ask(id, name, Rtype::A)
}

/// The question for the zone's serial number.
pub fn ask_serial(id: u16, zone: &str) -> Result<Vec<u8>, BadUpdate> {
    ask(id, zone, Rtype::SOA)
}

/// What `answer` says that the name in `question` leads to. A server follows an alias, and adds what that leads to:
/// only what is of the name itself counts.
pub fn read_addresses(question: &[u8], answer: &[u8]) -> Heard<Found> {
    read(question, answer, |message| {
        let asked: Name<Vec<u8>> = message.first_question()?.qname().to_string().parse().ok()?;
        let section = message.answer().ok()?;
        let of_name =
            section.limit_to_in::<A>().filter_map(Result::ok).filter(|record| *record.owner() == asked);
        let addresses = of_name
            .map(|record| (Ipv4Addr::from(record.data().addr().octets()), record.ttl().as_secs()))
            .collect();
        let mut aliases = section.limit_to_in::<Cname<_>>().filter_map(Result::ok);
        let alias =
            aliases.find(|record| *record.owner() == asked).map(|record| record.data().cname().to_string());
        Some(Found { addresses, alias })
    })
}

/// The serial number in an answer; none: the server has no such zone.
pub fn read_serial(question: &[u8], answer: &[u8]) -> Heard<Option<u32>> {
    read(question, answer, |message| {
        let found = message.answer().ok()?.limit_to_in::<Soa<_>>().find_map(Result::ok);
        Some(found.map(|record| record.data().serial().into_int()))
    })
}

fn ask(id: u16, name: &str, kind: Rtype) -> Result<Vec<u8>, BadUpdate> {
    let name = parse_name(name)?;
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    let mut question = builder.question();
    question.push((&name, kind)).map_err(|error| BadUpdate(error.to_string()))?;
    Ok(question.finish())
}

fn read<T>(
    question: &[u8],
    answer: &[u8],
    understand: impl FnOnce(&Message<Vec<u8>>) -> Option<T>,
) -> Heard<T> {
    let messages = (Message::from_octets(question.to_vec()), Message::from_octets(answer.to_vec()));
    let (Ok(question), Ok(answer)) = messages else { return Heard::Other };
    // A name that is gone is an answer too, with nothing in it.
    let is_told = [Rcode::NOERROR, Rcode::NXDOMAIN].contains(&answer.header().rcode());
    if !answer.is_answer(&question) {
        return Heard::Other;
    }
    if !is_told {
        return Heard::Untold(answer.header().rcode());
    }
    if answer.header().tc() {
        return Heard::Cut;
    }
    understand(&answer).map_or(Heard::Other, Heard::Answer)
}

#[cfg(test)]
mod tests {
    use super::{Heard, ask_address, read_addresses};
    use crate::name::Found;
    use domain::base::iana::Rcode;
    use domain::base::message_builder::AnswerBuilder;
    use domain::base::{Message, MessageBuilder, Name};
    use domain::rdata::{A, Cname};
    use std::net::Ipv4Addr;
    use std::str::FromStr;

    fn name(text: &str) -> Name<Vec<u8>> {
        Name::from_str(text).unwrap()
    }

    fn answer_to(question: &[u8], fill: impl FnOnce(&mut AnswerBuilder<Vec<u8>>)) -> Vec<u8> {
        let question = Message::from_octets(question.to_vec()).unwrap();
        let mut builder = MessageBuilder::new_vec().start_answer(&question, Rcode::NOERROR).unwrap();
        fill(&mut builder);
        builder.finish()
    }

    #[test]
    fn only_the_answer_to_the_question_is_read() {
        let question = ask_address(9, "web.lab.test").unwrap();
        let answer = answer_to(&question, |builder| {
            builder.push((name("WEB.lab.test"), 60, A::from_octets(10, 1, 0, 100))).unwrap();
        });
        let found = Found { addresses: vec![(Ipv4Addr::new(10, 1, 0, 100), 60)], alias: None };
        assert_eq!(read_addresses(&question, &answer), Heard::Answer(found));
        assert_eq!(read_addresses(&ask_address(8, "web.lab.test").unwrap(), &answer), Heard::Other);
        assert_eq!(read_addresses(&ask_address(9, "www.lab.test").unwrap(), &answer), Heard::Other);
    }

    #[test]
    fn an_alias_is_not_taken_for_what_it_leads_to() {
        let question = ask_address(9, "www.lab.test").unwrap();
        let answer = answer_to(&question, |builder| {
            builder.push((name("www.lab.test"), 60, Cname::new(name("web.lab.test")))).unwrap();
            builder.push((name("web.lab.test"), 60, A::from_octets(10, 1, 0, 100))).unwrap();
        });
        let found = Found { addresses: Vec::new(), alias: Some("web.lab.test".to_owned()) };
        assert_eq!(read_addresses(&question, &answer), Heard::Answer(found));
    }

    #[test]
    fn a_server_that_does_not_say_is_heard_as_such() {
        let question = ask_address(9, "web.lab.test").unwrap();
        let asked = Message::from_octets(question.clone()).unwrap();
        let refused = MessageBuilder::new_vec().start_answer(&asked, Rcode::REFUSED).unwrap().finish();
        assert_eq!(read_addresses(&question, &refused), Heard::Untold(Rcode::REFUSED));
        let gone = MessageBuilder::new_vec().start_answer(&asked, Rcode::NXDOMAIN).unwrap().finish();
        assert_eq!(read_addresses(&question, &gone), Heard::Answer(Found::default()));
    }

    #[test]
    fn a_set_that_was_cut_off_is_no_answer() {
        let question = ask_address(9, "web.lab.test").unwrap();
        let answer = answer_to(&question, |builder| {
            builder.push((name("web.lab.test"), 60, A::from_octets(10, 1, 0, 100))).unwrap();
            builder.header_mut().set_tc(true);
        });
        assert_eq!(read_addresses(&question, &answer), Heard::Cut);
    }
}
