//! Lists as columns, each as wide as its widest word.

use crate::api::{GuestState, HostState, Planned, PlannedDisk};
use crate::phase::Outcome;
use crate::quantity::{size, time};
use crate::status::Status;

/// Guests of a host.
pub fn guests(guests: &[GuestState]) -> Vec<String> {
    let row = |guest: &GuestState| {
        let remarks = [guest.remark.as_str(), guest.trouble.as_str()];
        vec![
            guest.name.clone(),
            guest.state.clone(),
            size(guest.memory_mib << 20),
            guest.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            guest.generation.to_string(),
            joined(&remarks),
        ]
    };
    table(&["GUEST", "STATE", "MEMORY", "PID", "GENERATION", "REMARK"], guests.iter().map(row), "no guests")
}

/// What a dry run has found.
pub fn planned(planned: &Planned) -> Vec<String> {
    let Planned { guest, source, destination, memory_bytes, disks, warnings } = planned;
    let of_disk = |disk: &PlannedDisk| match disk.size_bytes.zip(disk.allocated_bytes) {
        Some((bytes, allocated)) => {
            format!("disk {}: {}, {} of it in use", disk.id, size(bytes), size(allocated))
        }
        None => format!("disk {}: both hosts see it, nothing is copied", disk.id),
    };
    let first = [
        format!("{guest} can move from {source} to {destination}; nothing was started"),
        format!("memory: {}", size(*memory_bytes)),
    ];
    let warnings = warnings.iter().map(|warning| format!("warning: {warning}"));
    first.into_iter().chain(disks.iter().map(of_disk)).chain(warnings).collect()
}

/// Peers of a host.
pub fn hosts(hosts: &[HostState]) -> Vec<String> {
    let row = |host: &HostState| {
        let rtt = format!("{}.{} ms", host.rtt_us / 1000, host.rtt_us % 1000 / 100);
        vec![
            host.name.clone(),
            host.address.clone(),
            if host.data_address.is_empty() { "-".to_owned() } else { host.data_address.clone() },
            if host.reachable { "reachable".to_owned() } else { "unreachable".to_owned() },
            if host.reachable { rtt } else { "-".to_owned() },
            if host.version.is_empty() { "-".to_owned() } else { host.version.clone() },
            host.trouble.clone(),
        ]
    };
    let heads = ["HOST", "ADDRESS", "DATA", "STATE", "RTT", "VERSION", "REMARK"];
    table(&heads, hosts.iter().map(row), "no hosts; pair one by `migrated pair`")
}

/// Migrations at a host.
pub fn migrations(migrations: &[Status]) -> Vec<String> {
    let row = |status: &Status| {
        vec![
            status.id.clone(),
            status.guest.clone(),
            format!("{} -> {}", status.source, status.destination),
            status.outcome.map_or(status.phase.name(), outcome).to_owned(),
            time(status.elapsed_ms),
            status.eta_s.map_or_else(|| "-".to_owned(), |seconds| time(seconds * 1000)),
            joined(&status.reasons.iter().map(String::as_str).collect::<Vec<_>>()),
        ]
    };
    let heads = ["ID", "GUEST", "WAY", "STATE", "TIME", "ETA", "REASON"];
    table(&heads, migrations.iter().map(row), "no migrations")
}

/// The name of an end.
pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Moved => "moved",
        Outcome::Refused => "refused",
        Outcome::Cancelled => "cancelled",
        Outcome::RolledBack => "rolled back",
        Outcome::InDoubt => "in doubt",
    }
}

fn joined(words: &[&str]) -> String {
    let said: Vec<&str> = words.iter().copied().filter(|words| !words.is_empty()).collect();
    said.join("; ")
}

/// Rows below their heads; the last column is not padded.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>, none: &str) -> Vec<String> {
    let mut all = vec![heads.iter().map(|&head| head.to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    if all.len() == 1 {
        return vec![none.to_owned()];
    }
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded: Vec<String> =
            row.iter().zip(&widths).map(|(word, width)| format!("{word:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S3-26.
    #[test]
    fn what_a_dry_run_has_found_names_both_hosts_and_every_disk() {
        let disk = |id: &str, sizes: Option<(u64, u64)>| PlannedDisk {
            id: id.into(),
            size_bytes: sizes.map(|(size, _)| size),
            allocated_bytes: sizes.map(|(_, allocated)| allocated),
        };
        let found = Planned {
            guest: "web".into(),
            source: "site-a".into(),
            destination: "site-b".into(),
            memory_bytes: 512 << 20,
            disks: vec![disk("root", Some((1 << 30, 300 << 20))), disk("data", None)],
            warnings: vec!["the guest is emulated".into()],
        };
        let expected = [
            "web can move from site-a to site-b; nothing was started",
            "memory: 512.0 MiB",
            "disk root: 1.0 GiB, 300.0 MiB of it in use",
            "disk data: both hosts see it, nothing is copied",
            "warning: the guest is emulated",
        ];
        assert_eq!(planned(&found), expected);
    }

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let guest = |name: &str, pid, trouble: &str| GuestState {
            name: name.into(),
            state: "running".into(),
            pid,
            memory_mib: 512,
            generation: 2,
            remark: String::new(),
            trouble: trouble.into(),
        };
        let lines = guests(&[guest("web", Some(4711), ""), guest("database", None, "its disk is full")]);
        assert_eq!(
            lines,
            [
                "GUEST     STATE    MEMORY     PID   GENERATION  REMARK",
                "web       running  512.0 MiB  4711  2",
                "database  running  512.0 MiB  -     2           its disk is full",
            ]
        );
        assert_eq!(guests(&[]), ["no guests"]);
    }

    #[test]
    fn hosts_that_do_not_answer_say_why() {
        let host = HostState {
            name: "site-b".into(),
            address: "192.0.2.1:7070".into(),
            data_address: String::new(),
            reachable: false,
            rtt_us: 0,
            version: String::new(),
            trouble: "no route".into(),
        };
        let there = HostState { reachable: true, rtt_us: 100_250, version: "0.1.0".into(), ..host.clone() };
        assert_eq!(
            hosts(&[host, HostState { trouble: String::new(), ..there }]),
            [
                "HOST    ADDRESS         DATA  STATE        RTT       VERSION  REMARK",
                "site-b  192.0.2.1:7070  -     unreachable  -         -        no route",
                "site-b  192.0.2.1:7070  -     reachable    100.2 ms  0.1.0",
            ]
        );
    }

    #[test]
    fn migrations_show_where_they_are_or_how_they_ended() {
        let mut running = Status::new("0e2f9a61", "web", "site-a", "site-b");
        running.eta_s = Some(80);
        running.elapsed_ms = 12_345;
        let mut ended = Status::new("1", "db", "site-a", "site-b");
        ended.outcome = Some(Outcome::RolledBack);
        ended.reasons = vec!["no room".into()];
        assert_eq!(
            migrations(&[running, ended]),
            [
                "ID        GUEST  WAY               STATE          TIME    ETA         REASON",
                "0e2f9a61  web    site-a -> site-b  pre-migration  12.3 s  1 min 20 s",
                "1         db     site-a -> site-b  rolled back    0 ms    -           no room",
            ]
        );
    }
}
