//! Status for people: aligned lines, or one short line.

use std::fmt::Write;
use std::time::Duration;

use blockd::control::{Receiving, Status};
use serde_json::Value;

/// Aligned lines.
pub fn status(status: &Status) -> String {
    let Status { identity, replication, receiving, requests, throttle } = status;
    let mut out = String::new();
    let mut row = |name: &str, text: String| writeln!(out, "{name:<12} {text}").expect("a string takes all");
    let sealed =
        if identity.sealed == 0 { String::new() } else { format!(", sealed for {}", identity.sealed) };
    row("image", format!("{}, {}", identity.image.display(), bytes(identity.size_bytes)));
    row(
        "disk",
        format!("{}, {}, generation {}{sealed}", identity.disk_id, identity.role, identity.generation),
    );
    row(
        "serving",
        format!(
            "{} client{}, {} I/O by {}",
            requests.connections,
            if requests.connections == 1 { "" } else { "s" },
            identity.cache,
            identity.data_plane
        ),
    );
    row("confined", identity.confinement.clone());
    row("reads", format!("{}, {}", requests.reads_total, bytes(requests.read_bytes_total)));
    row("writes", format!("{}, {}", requests.writes_total, bytes(requests.written_bytes_total)));
    row(
        "others",
        format!(
            "{} flushes, {} trims, {} zeroings, {} errors",
            requests.flushes_total, requests.trims_total, requests.zeroes_total, requests.errors_total
        ),
    );
    if requests.has_lost_writes {
        row(
            "durable",
            "nothing any more: a flush failed; see to the disk, and start the daemon again".into(),
        );
    }
    let held = if replication.sealing { "; writes are held, the disk is being sealed" } else { "" };
    row("recording", format!("{}{held}", if replication.recording { "on" } else { "off" }));
    replica_rows(status, &mut row);
    if let Some(receiving) = receiving {
        row("receiving", receiving_row(receiving));
    }
    row(
        "throttle",
        format!(
            "{}, level {}, {} us; {} writes delayed",
            throttle.policy, throttle.level, throttle.delay_us, throttle.delayed_writes_total
        ),
    );
    out
}

/// What the source says of its replica.
fn replica_rows(status: &Status, row: &mut impl FnMut(&str, String)) {
    let replication = &status.replication;
    if replication.recording || replication.connected {
        row("replica", replica(status));
        row(
            "backlog",
            format!(
                "{}: {} dirty blocks, {} in the queue, {} unacknowledged",
                bytes(replication.backlog_bytes),
                replication.dirty_blocks,
                bytes(replication.queued_bytes),
                bytes(replication.unacknowledged_bytes)
            ),
        );
        row("sent", format!("{}, ratio {:.2}", bytes(replication.sent_bytes_total), replication.ratio));
        row(
            "digests",
            format!("{} leaves stale, {} differ", replication.stale_leaves, replication.mismatched_leaves),
        );
    }
}

/// What a replica says of itself.
fn receiving_row(receiving: &Receiving) -> String {
    format!(
        "session {}, batch {} applied, {} durable; {} applied, {} leaves compared",
        receiving.epoch,
        receiving.applied_seq,
        receiving.durable_seq,
        bytes(receiving.applied_bytes_total),
        receiving.compared_leaves_total
    )
}

fn replica(status: &Status) -> String {
    let replication = &status.replication;
    match (replication.connected, replication.last_error.as_str()) {
        (true, _) => format!("connected, epoch {}", replication.epoch),
        (false, "") => "not connected".into(),
        (false, error) => format!("not connected: {error}"),
    }
}

/// One line; rates since `before`, which is `every` old.
pub fn line(status: &Status, before: Option<&Status>, every: Duration) -> String {
    let rate = |total: fn(&Status) -> u64| {
        let earlier = before.map_or(total(status), total);
        total(status).saturating_sub(earlier) as f64 / every.as_secs_f64()
    };
    let replication = &status.replication;
    let link = if replication.connected { "connected" } else { "not connected" };
    format!(
        "{} {}  read {}/s  write {}/s  backlog {}  sent {}/s  {link}  delay {} us",
        status.identity.disk_id,
        status.identity.role,
        bytes(rate(|status| status.requests.read_bytes_total) as u64),
        bytes(rate(|status| status.requests.written_bytes_total) as u64),
        bytes(replication.backlog_bytes),
        bytes(rate(|status| status.replication.sent_bytes_total) as u64),
        status.throttle.delay_us,
    )
}

/// The answer to any other command: `done`, or its fields a line each.
pub fn answer(answer: &Value) -> String {
    let Value::Object(fields) = answer else { return format!("{answer}\n") };
    if fields.is_empty() {
        return "done\n".into();
    }
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    fields.iter().map(|(name, value)| format!("{name:<width$}  {}\n", plain(value))).collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut scaled = count as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().expect("there are units");
    while scaled >= 1024.0 {
        let Some(next) = units.next() else { break };
        (scaled, unit) = (scaled / 1024.0, next);
    }
    format!("{scaled:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn example() -> Status {
        let mut status = Status::default();
        status.identity.image = "/images/web.raw".into();
        status.identity.disk_id = "web".into();
        status.identity.role = "primary".into();
        status.identity.size_bytes = 10 << 30;
        status.requests.written_bytes_total = 3 << 20;
        status.throttle.policy = "none".into();
        status
    }

    #[test]
    fn a_disk_without_a_replica_is_shown_without_one() {
        let text = status(&example());
        assert!(text.starts_with("image        /images/web.raw, 10.0 GiB\n"), "{text}");
        assert!(text.contains("\nrecording    off\n") && !text.contains("backlog"), "{text}");
    }

    #[test]
    fn a_disk_with_a_replica_is_shown_with_its_backlog_and_its_last_error() {
        let mut shown = example();
        shown.replication.recording = true;
        shown.replication.backlog_bytes = 1536;
        shown.replication.last_error = "connection reset".into();
        let text = status(&shown);
        assert!(text.contains("backlog      1.5 KiB") && text.contains("connection reset"), "{text}");
    }

    #[test]
    fn the_short_line_has_rates() {
        let (before, mut now) = (example(), example());
        now.requests.written_bytes_total += 4 << 20;
        let text = line(&now, Some(&before), Duration::from_secs(2));
        assert!(text.contains("write 2.0 MiB/s"), "{text}");
        assert!(line(&now, None, Duration::from_secs(1)).contains("write 0 B/s"));
    }

    #[test]
    fn answers_are_done_or_their_fields() {
        assert_eq!(answer(&json!({})), "done\n");
        assert_eq!(answer(&json!({"waited_ms": 5, "a": "b"})), "a          b\nwaited_ms  5\n");
    }

    #[test]
    fn sizes_are_shown_with_their_unit() {
        let shown = [0, 1023, 1024, 1 << 20, 1 << 50, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 PiB", "16384.0 PiB"]);
    }
}
