//! What a program of ours wrote before it ended, as the reason alone: for a message, where its log has the rest.
//!
//! ```text
//! 2026-… INFO blockd::io::supervisor: started …       ──► left out where there is a reason
//! blockd: cannot serve w.raw: …                       ──► cannot serve w.raw: …
//! 2026-… qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID.07H:EBX.rdseed [bit 18] (×200)
//!                                                     ──► TCG doesn't support the CPU features rdseed, … and 188 more
//! ```
//!
//! Lines of several processes come in any order, so nothing is concluded from it.

/// So many names, and so many letters in all, are enough for a person.
const NAMED_MAX: usize = 12;
const LETTERS_MAX: usize = 800;

/// How QEMU says that a CPU lacks a feature, and that it ends because of it.
const FEATURE: &str = " doesn't support requested feature: ";
const FEATURES: &str = " doesn't support requested features";

/// What `text` says of why the program ended; none: it says nothing.
pub fn reason(text: &str) -> Option<String> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut reasons = Vec::new();
    let mut features = Vec::new();
    for line in lines().filter(|line| level(line).is_none()) {
        let line = without_program(without_time(line));
        if let Some((who, feature)) = line.split_once(FEATURE) {
            let who = who.trim_start_matches("warning: ");
            features.push((who.to_owned(), feature_name(feature).to_owned()));
        } else if !line.ends_with(FEATURES) && !reasons.iter().any(|said| said == line) {
            reasons.push(line.to_owned());
        }
    }
    if let Some((who, _)) = features.first() {
        let named: Vec<&str> = features.iter().map(|(_, name)| name.as_str()).take(NAMED_MAX).collect();
        let more = features.len() - named.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        reasons.push(format!("{who} doesn't support the CPU features {}{more}", named.join(", ")));
    }
    if reasons.is_empty() {
        // Then the worst of its log.
        let worst = ["ERROR", "WARN", "INFO"]
            .iter()
            .find_map(|wanted| lines().rfind(|line| level(line) == Some(*wanted)));
        reasons.extend(worst.map(|line| without_time(line).to_owned()));
    }
    (!reasons.is_empty()).then(|| short(&reasons.join("; ")))
}

/// The level of a line of a log: a time, the level, the place, the words.
fn level(line: &str) -> Option<&str> {
    let rest = without_time(line);
    let level = rest.split_whitespace().next().filter(|_| rest.len() < line.len())?;
    matches!(level, "ERROR" | "WARN" | "INFO" | "DEBUG" | "TRACE").then_some(level)
}

/// A line without the time that it begins with, as `2026-12-01T05:40:15.809401Z`.
fn without_time(line: &str) -> &str {
    let is_time = |word: &str| {
        let (date, clock) = word.strip_suffix('Z').and_then(|word| word.split_once('T')).unwrap_or_default();
        let of = |text: &str, mark: char| {
            text.split(mark).count() == 3 && text.starts_with(|c: char| c.is_ascii_digit())
        };
        of(date, '-') && of(clock, ':')
    };
    match line.split_once(char::is_whitespace) {
        Some((word, rest)) if is_time(word) => rest.trim_start(),
        _ => line,
    }
}

/// A line without the name of the program that says it.
fn without_program(line: &str) -> &str {
    let is_program = |word: &str| word == "blockd" || word.starts_with("qemu-system-");
    match line.split_once(": ") {
        Some((word, rest)) if is_program(word) => rest,
        _ => line,
    }
}

/// "CPUID.07H:EBX.rdseed [bit 18]" is rdseed.
fn feature_name(feature: &str) -> &str {
    let name = feature.split(" [").next().unwrap_or(feature);
    // Its register may come before it; its own name may have points.
    name.split_once(':').and_then(|(_, rest)| rest.split_once('.')).map_or(name, |(_, name)| name)
}

fn short(text: &str) -> String {
    match text.char_indices().nth(LETTERS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        reason(text).unwrap_or_default()
    }

    #[test]
    fn a_reason_stands_without_the_log_around_it_in_whatever_order_they_come() {
        let why = "blockd: cannot serve w.raw (sidecar w.raw.blockd): there is no image to serve; create it";
        let log = "2026-12-01T05:40:15.760094Z  INFO blockd::io::supervisor: started the daemon pid=13803";
        let expected = "cannot serve w.raw (sidecar w.raw.blockd): there is no image to serve; create it";
        for text in
            [format!("{why}\n{log}\n"), format!("{log}\n{why}\n"), format!("\n{why}\n{why}"), why.into()]
        {
            assert_eq!(said(&text), expected, "{text}");
        }
    }

    #[test]
    fn where_there_is_only_a_log_its_worst_line_is_the_reason_and_of_nothing_there_is_none() {
        let log = "2026-12-01T05:40:15.1Z  INFO blockd: begins\n2026-12-01T05:40:15.2Z ERROR blockd::io: no disk\n\
                   2026-12-01T05:40:15.3Z  WARN blockd: once more\n2026-12-01T05:40:15.4Z  INFO blockd: ends\n";
        assert_eq!(said(log), "ERROR blockd::io: no disk");
        assert_eq!(said("2026-12-01T05:40:15.1Z  INFO blockd: begins"), "INFO blockd: begins");
        assert_eq!((reason(""), reason(" \n\n")), (None, None));
        assert_eq!(reason("2026-12-01T05:40:15.1Z DEBUG blockd: nothing"), None);
    }

    #[test]
    fn features_of_a_cpu_are_named_and_counted_and_not_listed_line_by_line() {
        let line = |name: &str| {
            format!(
                "2026-12-01T05:40:15.809401Z qemu-system-x86_64: warning: TCG doesn't support requested feature: \
                 CPUID.07H:EBX.{name} [bit 18]\n"
            )
        };
        let end = "2026-12-01T05:40:15.809489Z qemu-system-x86_64: TCG doesn't support requested features\n";
        assert_eq!(
            said(&format!("{}{}{end}", line("rdseed"), line("sse4.1"))),
            "TCG doesn't support the CPU features rdseed, sse4.1"
        );
        let many: String = (1..=200).map(|number| line(&format!("f{number}"))).collect();
        let short = said(&format!("{many}{end}"));
        assert!(short.ends_with("f11, f12 and 188 more"), "{short}");
        assert!(short.len() < 150, "{short}");
        let host = "qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.0DH:EAX.xsavec [bit 1]";
        assert_eq!(said(host), "host doesn't support the CPU features xsavec");
    }

    #[test]
    fn other_words_of_qemu_stay_and_none_are_endless() {
        let text =
            "2026-12-01T05:40:15.847582Z qemu-system-x86_64: Property 'qemu64-x86_64-cpu.bogus' not found";
        assert_eq!(said(text), "Property 'qemu64-x86_64-cpu.bogus' not found");
        assert_eq!(
            said("/usr/bin/qemu: 1: exec: nothing: not found"),
            "/usr/bin/qemu: 1: exec: nothing: not found"
        );
        let endless = said(&"ä".repeat(5000));
        assert_eq!(endless.chars().count(), LETTERS_MAX + 1);
        assert!(endless.ends_with('…'));
    }
}
