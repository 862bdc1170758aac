//! Names of DNS: which ones a guest can have, and how one with other letters is written.
//!
//! A label has letters, digits, `-` and `_`, 63 at most (RFC 1035, 2.3.4). One of another script is written by its ASCII
//! form: `bücher` is `xn--bcher-kva` (RFC 5891; Punycode: RFC 3492).
//!
//! It refuses to convert on its own account: what stands in a file is what goes to the server.

/// Whether `name` is one that a guest can have; a dot at its end is no part of it.
pub fn is_host_name(name: &str) -> bool {
    let name = without_root(name);
    name.contains('.') && is_zone_name(name)
}

/// Whether `name` is one of a zone that guests' names can lie in.
pub fn is_zone_name(name: &str) -> bool {
    let name = without_root(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// How a name is to be written that is none as it stands: in ASCII, where its letters are what is wrong.
pub fn suggestion(name: &str) -> Option<String> {
    let name = name.to_lowercase();
    let labels: Vec<String> = without_root(&name).split('.').map(ascii_label).collect::<Option<_>>()?;
    let written = labels.join(".");
    (written != name && is_zone_name(&written)).then_some(written)
}

fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn ascii_label(label: &str) -> Option<String> {
    let is_letter = |letter: char| letter.is_alphanumeric() || "-_".contains(letter);
    match label.is_ascii() {
        true => Some(label.to_owned()),
        false if label.chars().all(is_letter) => Some(format!("xn--{}", punycode(label)?)),
        false => None,
    }
}

/// Parameters of RFC 3492, section 5.
const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const FIRST_BIAS: u32 = 72;
const FIRST_CODE: u32 = 128;

/// RFC 3492, section 6.3. None: too long.
fn punycode(label: &str) -> Option<String> {
    let letters: Vec<u32> = label.chars().map(u32::from).collect();
    let mut written: String = label.chars().filter(char::is_ascii).collect();
    let basic = written.len() as u32;
    if basic > 0 {
        written.push('-');
    }
    let (mut code, mut delta, mut bias, mut handled) = (FIRST_CODE, 0u32, FIRST_BIAS, basic);
    while (handled as usize) < letters.len() {
        let next = *letters.iter().filter(|letter| **letter >= code).min()?;
        delta = delta.checked_add((next - code).checked_mul(handled + 1)?)?;
        code = next;
        for letter in &letters {
            if *letter < code {
                delta = delta.checked_add(1)?;
            }
            if *letter == code {
                number(&mut written, delta, bias);
                bias = adapted(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta = delta.checked_add(1)?;
        code += 1;
    }
    Some(written)
}

/// A number of variable length.
fn number(written: &mut String, mut rest: u32, bias: u32) {
    let digit = |value: u32| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[value as usize]);
    let mut place = BASE;
    loop {
        let threshold = place.saturating_sub(bias).clamp(T_MIN, T_MAX);
        if rest < threshold {
            return written.push(digit(rest));
        }
        written.push(digit(threshold + (rest - threshold) % (BASE - threshold)));
        rest = (rest - threshold) / (BASE - threshold);
        place += BASE;
    }
}

fn adapted(delta: u32, points: u32, is_first: bool) -> u32 {
    let mut delta = if is_first { delta / DAMP } else { delta / 2 };
    delta += delta / points;
    let mut place = 0;
    while delta > (BASE - T_MIN) * T_MAX / 2 {
        delta /= BASE - T_MIN;
        place += BASE;
    }
    place + (BASE - T_MIN + 1) * delta / (delta + SKEW)
}

#[cfg(test)]
mod tests {
    use super::{is_host_name, is_zone_name, punycode, suggestion};

    #[test]
    fn a_guest_can_have_names_of_hosts_only() {
        for name in ["web.example.org", "Web.Example.org.", "_x.a-b.c", "xn--bcher-kva.example"] {
            assert!(is_host_name(name), "{name}");
        }
        for name in
            ["", ".", "web", "web..org", "-a.org", "a-.org", "web example.org", "bücher.example", "a/b.org"]
        {
            assert!(!is_host_name(name), "{name}");
        }
        assert!(is_zone_name("lab") && is_zone_name("example.org.") && !is_zone_name("bücher.example"));
        assert!(!is_zone_name(&"a.".repeat(128)) && !is_zone_name(&format!("{}.org", "a".repeat(64))));
    }

    /// The words of RFC 3492, section 7.1 (B, L, S), and some of every day.
    #[test]
    fn other_letters_are_written_as_the_standard_says() {
        for (word, written) in [
            ("他们为什么不说中文", "ihqwcrb4cv8a8dqg056pqjye"),
            ("3年b組金八先生", "3b-ww4c5e180e575a65lsy2b"),
            ("bücher", "bcher-kva"),
            ("münchen-ost", "mnchen-ost-9db"),
            ("ü", "tda"),
        ] {
            assert_eq!(punycode(word).as_deref(), Some(written), "{word}");
        }
    }

    #[test]
    fn a_suggestion_is_made_where_letters_are_what_is_wrong() {
        assert_eq!(suggestion("Bücher.Example").as_deref(), Some("xn--bcher-kva.example"));
        assert_eq!(suggestion("web.bücher.example.").as_deref(), Some("web.xn--bcher-kva.example"));
        for name in ["example.org", "example..org", "bü cher.example", "bücher..example"] {
            assert_eq!(suggestion(name), None, "{name}");
        }
    }
}
