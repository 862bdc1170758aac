//! What came of it: the report, what the client felt, where the guest's address and name lead, and the oracle's verdict.
//!
//! Everything that is not as promised is a line of `violations`, and there is no success with one.

use std::net::Ipv4Addr;

use migrated::phase::Outcome;
use migrated::quantity::{size, time};
use migrated::report::Report;
use serde::Serialize;

use super::stage::{NEW_ADDRESS, Stage, listed};
use super::watch::Sent;
use super::wish::Wish;
use crate::guest_kit::ADDRESS;
use crate::guest_kit::service::Service;
use crate::hosts::names::NAME;
use crate::oracle::Violation;
use crate::prober::figures::Figures;
use crate::wan::End;

/// Answers during which the tunnel is looked at.
const LOOKED_AT_ANSWERS: u64 = 20;

/// What is seen while everything runs.
#[derive(Debug)]
pub struct Seen {
    sent: Sent,
    path: Path,
}

/// Where the guest's address and name lead.
#[derive(Debug, Serialize)]
pub struct Path {
    /// The guest's own address.
    pub address: Ipv4Addr,
    /// What it also has at its new site.
    pub new_address: Option<Ipv4Addr>,
    /// What its name led to before, and leads to now.
    pub name_before: Vec<Ipv4Addr>,
    /// Now.
    pub name_after: Vec<Ipv4Addr>,
    /// The device at site A through which old connections go.
    pub tunnel: Option<String>,
    /// Bytes that went through it while the client's session had 20 answers.
    pub tunnel_bytes: u64,
    /// The guest answers a new connection to its new address.
    pub new_address_answers: bool,
}

/// The result.
#[derive(Debug, Serialize)]
pub struct Account {
    /// What was asked for.
    pub wish: Wish,
    /// The links.
    pub link: String,
    /// How it ended; none: it never began.
    pub outcome: Option<Outcome>,
    /// What the command said beside its figures.
    pub said: Vec<String>,
    /// The migration's own report.
    pub report: Option<Report>,
    /// What the client felt; none: it could not be asked.
    pub client: Option<Figures>,
    /// Writes that the client heard of, each of which must be on the disk.
    pub confirmed_writes: u64,
    /// What the guest said when it checked its memory.
    pub memory: String,
    /// Where the guest's address and name lead.
    pub path: Path,
    /// All that is not as promised.
    pub violations: Vec<String>,
}

/// Look at what runs, after the move.
pub fn look(stage: &Stage, sent: Sent) -> Seen {
    let has_moved = outcome(&sent) == Some(Outcome::Moved);
    let before_bytes = stage.through_tunnel().map_or(0, |(_, bytes)| bytes);
    if has_moved {
        stage.prober.wait_for_answers(LOOKED_AT_ANSWERS);
    }
    let tunnel = stage.through_tunnel();
    let after_bytes = tunnel.as_ref().map_or(0, |(_, bytes)| *bytes);
    let at_new = Service::at(stage.hosts.client(), NEW_ADDRESS);
    let path = Path {
        address: ADDRESS,
        new_address: has_moved.then_some(NEW_ADDRESS),
        name_before: stage.names_before.clone(),
        name_after: stage.names.addresses(&stage.hosts),
        tunnel: tunnel.map(|(device, _)| device),
        tunnel_bytes: after_bytes.saturating_sub(before_bytes),
        new_address_answers: has_moved && at_new.try_ask("uptime").is_ok(),
    };
    Seen { sent, path }
}

fn outcome(sent: &Sent) -> Option<Outcome> {
    sent.status.as_ref().and_then(|status| status.outcome)
}

impl Account {
    /// End the guest, have the oracle look at what is left, and add up.
    pub fn close(wish: &Wish, stage: Stage, seen: Seen) -> Self {
        let Seen { sent, path } = seen;
        let outcome = outcome(&sent);
        let report = sent.status.as_ref().and_then(|status| status.report.clone());
        let mut violations = broken_promises(&sent, &path);
        let there = match outcome {
            Some(Outcome::Moved) => Some(End::SiteB),
            Some(Outcome::InDoubt) => None,
            _ => Some(End::SiteA),
        };
        let Stage { prober, resident, hosts, names: _names, .. } = stage;
        let judged = there.map(|there| resident.examine(&hosts, there, prober));
        violations
            .extend(judged.iter().flat_map(|judged| judged.violations.iter().map(Violation::to_string)));
        Self {
            wish: wish.clone(),
            link: wish.profile().to_string(),
            outcome,
            said: sent.said,
            report,
            client: judged.as_ref().map(|judged| judged.figures.clone()),
            confirmed_writes: judged.as_ref().map_or(0, |judged| judged.acknowledged.iter().sum()),
            memory: judged.map(|judged| judged.memory.line).unwrap_or_default(),
            path,
            violations,
        }
    }

    /// Whether the guest moved and nothing was violated.
    pub fn is_good(&self) -> bool {
        self.outcome == Some(Outcome::Moved) && self.violations.is_empty()
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new(), "== What migrated reports".to_owned()];
        lines.extend(self.report.iter().flat_map(Report::lines));
        lines.extend(self.said.iter().cloned());
        lines.extend([String::new(), "== What the client felt".to_owned()]);
        lines.extend(self.client.iter().flat_map(|figures| felt(figures, self.downtime_ms())));
        lines.extend([String::new(), "== Where the guest is found".to_owned()]);
        lines.extend(self.path.lines());
        lines.extend([String::new(), "== Verdict".to_owned()]);
        lines.extend(self.verdict());
        lines
    }

    fn downtime_ms(&self) -> Option<u64> {
        self.report.as_ref().and_then(|report| report.downtime_ms)
    }

    fn verdict(&self) -> Vec<String> {
        if !self.violations.is_empty() {
            let mut lines = vec![format!("NOT as promised, {} times:", self.violations.len())];
            lines.extend(self.violations.iter().map(|what| format!("  {what}")));
            return lines;
        }
        vec![
            entry(
                "disk",
                &format!(
                    "all {} writes that the client heard of are there, none stale",
                    self.confirmed_writes
                ),
            ),
            entry("memory", &format!("every page holds what the guest wrote to it ({})", self.memory)),
            entry("sides", "the guest ran at site-b alone"),
            entry("session", "the same TCP connections from beginning to end, every line answered"),
        ]
    }
}

impl Path {
    fn lines(&self) -> Vec<String> {
        let Self { address, name_before, name_after, tunnel_bytes, .. } = self;
        let new = self.new_address.map_or(String::new(), |new| format!(", and new: {new}"));
        let mut lines = vec![
            entry("address", &format!("as before: {address}{new}")),
            entry("name", &format!("{NAME} was {}, is {}", listed(name_before), listed(name_after))),
        ];
        if let Some(tunnel) = &self.tunnel {
            let bytes = size(*tunnel_bytes);
            lines.push(entry(
                "old users",
                &format!("go on by site-a and the tunnel {tunnel} ({bytes} for {LOOKED_AT_ANSWERS} answers)"),
            ));
        }
        if self.new_address.is_some() {
            let answers =
                if self.new_address_answers { "answer at once, without site-a" } else { "get no answer" };
            lines.push(entry("new users", &format!("of the new address {answers}")));
        }
        lines
    }
}

/// What the path and the command did not keep.
fn broken_promises(sent: &Sent, path: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    let mut insist = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    let outcome = outcome(sent);
    insist(outcome == Some(Outcome::Moved), format!("Outcome: the guest did not move: {outcome:?}"));
    if outcome != Some(Outcome::Moved) {
        return broken;
    }
    insist(sent.exit_code == 0, format!("Outcome: `migrated send` ended with {}", sent.exit_code));
    let after = listed(&path.name_after);
    insist(path.name_after == [NEW_ADDRESS], format!("Name: {NAME} leads to {after}, not to {NEW_ADDRESS}"));
    insist(path.tunnel_bytes > 0, "Path: nothing goes through the tunnel".to_owned());
    insist(path.new_address_answers, format!("Path: the guest does not answer at {NEW_ADDRESS}"));
    broken
}

fn felt(figures: &Figures, downtime_ms: Option<u64>) -> Vec<String> {
    let ms = |us: u64| time(us / 1000);
    let pause = downtime_ms
        .map_or(String::new(), |downtime| format!("; the guest stood still for {}", time(downtime)));
    let more = downtime_ms.map_or(String::new(), |downtime| {
        let more_us = figures.additional_disruption_us(downtime * 1000);
        format!("; {} ms more than the guest's own pause", more_us / 1000)
    });
    vec![
        entry("longest gap", &format!("{} without an answer{pause}", ms(figures.longest_gap_us))),
        entry(
            "disruption",
            &format!(
                "{} with answers slower than {} (usual: {}){more}",
                ms(figures.disruption_us),
                ms(figures.limit_us),
                ms(figures.median_us)
            ),
        ),
        entry("lost", &format!("{} of {} lines", figures.lost_lines, figures.lines)),
        entry(
            "connections",
            &format!(
                "{} reset, {} closed, {} opened anew",
                figures.resets, figures.closed, figures.reconnects
            ),
        ),
    ]
}

fn entry(head: &str, words: &str) -> String {
    format!("{head:<17}  {words}")
}
