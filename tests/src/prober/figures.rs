//! What users felt, computed from the client's record; pure.
//!
//! ```text
//! lines sent     |  |  |  |  |  |  |  |  |  |  |        each stands for the time until the next one
//! answered       |  |  |              |||||||  |  |
//!                      └─ longest gap ┘
//!                         xxxxxxxxxxxxxxxx              disruption: answers later than factor × the usual
//! ```
//!
//! Disruption (S4-51) is the time whose lines were answered later than a factor of the baseline's median, or not at
//! all. Additional disruption (S4-52) is what is left of it without the downtime that was announced.

use serde::{Deserialize, Serialize};

use super::record::{Connection, Exchange, Record};

/// What counts as disruption.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Times the median of the baseline.
    pub factor: f64,
    /// But never less: the noise of an emulated guest is no disruption.
    pub floor_us: u64,
}

impl Default for Threshold {
    fn default() -> Self {
        Self { factor: 5.0, floor_us: 20_000 }
    }
}

/// The figures of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Lines sent in the echo session.
    pub lines: u64,
    /// Of these, never answered.
    pub lost_lines: u64,
    /// Longest time without an answer while lines were being sent.
    pub longest_gap_us: u64,
    /// Usual time of an answer, before the first mark.
    pub median_us: u64,
    /// Worst time of an answer.
    pub worst_us: u64,
    /// Time with a response worse than the threshold.
    pub disruption_us: u64,
    /// Connections of the echo session after the first.
    pub reconnects: u64,
    /// Connections of any session that were reset.
    pub resets: u64,
    /// Connections of any session that were lost in another way.
    pub closed: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Of these, never answered.
    pub lost_datagrams: u64,
    /// Longest time without an answer to a datagram.
    pub longest_datagram_gap_us: u64,
    /// What the guest's clock has lost against the client's: a pause that the guest did not see.
    pub guest_lag_us: i64,
    /// Time of one more connection at the end.
    pub new_connection_us: Option<u64>,
}

impl Figures {
    /// Compute them.
    pub fn of(record: &Record, threshold: Threshold) -> Self {
        let baseline_end_us = record.marks.first().map_or(u64::MAX, |mark| mark.at_us);
        let median_us = median(&record.lines, baseline_end_us);
        let limit_us = threshold.floor_us.max((median_us as f64 * threshold.factor) as u64);
        let writers = record.disks.iter().flat_map(|disk| &disk.connections);
        let all: Vec<&Connection> = record.connections.iter().chain(writers).collect();
        let losses = || all.iter().filter_map(|connection| connection.lost.as_ref());
        let resets = losses().filter(|loss| loss.was_reset).count();
        Self {
            lines: record.lines.len() as u64,
            lost_lines: lost(&record.lines),
            longest_gap_us: longest_gap(&record.lines),
            median_us,
            worst_us: record.lines.iter().filter_map(response).max().unwrap_or(0),
            disruption_us: disruption(&record.lines, limit_us, record.end_us),
            reconnects: record.connections.len().saturating_sub(1) as u64,
            resets: resets as u64,
            closed: (losses().count() - resets) as u64,
            datagrams: record.datagrams.len() as u64,
            lost_datagrams: lost(&record.datagrams),
            longest_datagram_gap_us: longest_gap(&record.datagrams),
            guest_lag_us: guest_lag(&record.lines),
            new_connection_us: record.new_connection_us,
        }
    }

    /// Disruption beyond a downtime that was measured elsewhere; negative, if users felt less than that.
    pub fn additional_disruption_us(&self, downtime_us: u64) -> i64 {
        self.disruption_us.cast_signed() - downtime_us.cast_signed()
    }
}

fn response(exchange: &Exchange) -> Option<u64> {
    exchange.answered_us.map(|answered_us| answered_us.saturating_sub(exchange.sent_us))
}

fn lost(exchanges: &[Exchange]) -> u64 {
    exchanges.iter().filter(|exchange| exchange.answered_us.is_none()).count() as u64
}

fn median(exchanges: &[Exchange], before_us: u64) -> u64 {
    let early = exchanges.iter().filter(|exchange| exchange.sent_us < before_us);
    let mut times: Vec<u64> = early.filter_map(response).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}

/// From the first line to the last answer; silence after the last line counts up to the last answer only.
fn longest_gap(exchanges: &[Exchange]) -> u64 {
    let Some(first) = exchanges.first() else { return 0 };
    let mut answers: Vec<u64> = exchanges.iter().filter_map(|exchange| exchange.answered_us).collect();
    answers.push(first.sent_us);
    // Lines that were never answered at the end of it all are a gap too.
    let last_lost = exchanges.last().filter(|last| last.answered_us.is_none());
    answers.extend(last_lost.map(|last| last.sent_us));
    answers.sort_unstable();
    answers.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

fn disruption(lines: &[Exchange], limit_us: u64, end_us: u64) -> u64 {
    let ends = lines.iter().skip(1).map(|next| next.sent_us).chain([end_us]);
    let is_bad = |line: &Exchange| response(line).is_none_or(|took_us| took_us > limit_us);
    let spans = lines.iter().zip(ends).filter(|(line, _)| is_bad(line));
    spans.map(|(line, end_us)| end_us.saturating_sub(line.sent_us)).sum()
}

/// Least difference of the two clocks in the last answers, minus that in the first: the way to the guest is in both.
fn guest_lag(lines: &[Exchange]) -> i64 {
    let offset = |line: &Exchange| Some(line.answered_us?.cast_signed() - line.guest_us?.cast_signed());
    let offsets: Vec<i64> = lines.iter().filter_map(offset).collect();
    let few = (offsets.len() / 4).clamp(1, 20);
    let first = offsets.iter().take(few).min();
    let last = offsets.iter().rev().take(few).min();
    first.zip(last).map_or(0, |(first, last)| last - first)
}

#[cfg(test)]
mod tests {
    use super::{Figures, Threshold};
    use crate::prober::record::{Connection, Exchange, Loss, Mark, Record};

    const MS: u64 = 1000;

    /// Twenty lines a second for four seconds; the guest stands still from 2 s on for `pause_ms`.
    fn record(pause_ms: u64) -> Record {
        let line = |number: u64| {
            let sent_us = 1000 * MS + number * 50 * MS;
            let (from_us, to_us) = (2000 * MS, (2000 + pause_ms) * MS);
            let answered_us = if (from_us..to_us).contains(&sent_us) { to_us + MS } else { sent_us + MS };
            let lag_us = if answered_us >= to_us { pause_ms * MS } else { 0 };
            Exchange { sent_us, answered_us: Some(answered_us), guest_us: Some(answered_us - lag_us) }
        };
        let lines: Vec<Exchange> = (0..80).map(line).collect();
        let marks = vec![Mark { name: "send".into(), at_us: 1900 * MS }];
        Record { marks, lines, end_us: 5000 * MS, ..Record::default() }
    }

    #[test]
    fn without_a_pause_nothing_is_disrupted() {
        let figures = Figures::of(&record(0), Threshold::default());
        assert_eq!((figures.lines, figures.lost_lines, figures.median_us), (80, 0, MS));
        assert_eq!((figures.disruption_us, figures.longest_gap_us), (0, 50 * MS));
        assert_eq!((figures.guest_lag_us, figures.worst_us), (0, MS));
    }

    #[test]
    fn a_pause_shows_as_gap_as_disruption_and_as_lag_of_the_guests_clock() {
        let figures = Figures::of(&record(500), Threshold::default());
        // The line before was answered at 1951 ms, the first after at 2501 ms.
        assert_eq!(figures.longest_gap_us, 550 * MS);
        assert_eq!(figures.disruption_us, 500 * MS);
        assert_eq!(figures.guest_lag_us, 500 * MS as i64);
        assert_eq!(figures.additional_disruption_us(450 * MS), 50 * MS as i64);
        assert_eq!(figures.additional_disruption_us(600 * MS), -100 * MS as i64);
    }

    #[test]
    fn the_factor_decides_what_is_disruption() {
        let mut record = record(0);
        record.lines[40].answered_us = Some(record.lines[40].sent_us + 30 * MS);
        let of = |factor, floor_us| Figures::of(&record, Threshold { factor, floor_us }).disruption_us;
        assert_eq!((of(5.0, 0), of(40.0, 0), of(5.0, 40 * MS)), (50 * MS, 0, 0));
    }

    #[test]
    fn a_line_without_an_answer_is_lost_and_disrupted_to_the_end() {
        let mut record = record(0);
        for line in &mut record.lines[70..] {
            line.answered_us = None;
        }
        let figures = Figures::of(&record, Threshold::default());
        assert_eq!((figures.lost_lines, figures.disruption_us), (10, 500 * MS));
        // From the answer at 4451 ms to the last line at 4950 ms.
        assert_eq!(figures.longest_gap_us, 499 * MS);
    }

    #[test]
    fn resets_and_closed_connections_are_told_apart() {
        let address = "10.0.0.1:7".parse().unwrap();
        let lost = |was_reset| Some(Loss { at_us: 1, was_reset, why: String::new() });
        let connection = |lost| Connection { ends: (address, address), opened_us: 0, lost };
        let mut record = record(0);
        record.connections = vec![connection(lost(true)), connection(lost(false)), connection(None)];
        let figures = Figures::of(&record, Threshold::default());
        assert_eq!((figures.resets, figures.closed, figures.reconnects), (1, 1, 2));
    }

    #[test]
    fn an_empty_record_has_no_figures() {
        assert_eq!(Figures::of(&Record::default(), Threshold::default()), Figures::default());
    }
}
