//! What users felt, computed from the client's record; pure.
//!
//! ```text
//! lines sent     |  |  |  |  |  |  |  |  |  |  |        each stands for the time until the next one
//! answered       |  |  |              |||||||  |  |
//!                      └─ longest gap ┘
//!                         xxxxxxxxxxxxxxxx              disruption: answers later than the limit
//!
//! limit = round trip + factor × (usual answer − round trip)      of the time before the first mark
//! ```
//!
//! Disruption is the time whose lines were answered later than the limit, or not at all. The way there and back is the
//! same whatever the guest does: a factor of it would hide a pause on a long way, so the factor is of what is beyond it.
//! Additional disruption is what is left of it without the downtime that was announced; nothing of either is cut off.

use serde::{Deserialize, Serialize};

use super::record::{Connection, Exchange, Record};

/// What counts as disruption.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Times what the baseline's median has beyond the round trip.
    pub factor: f64,
    /// But never less beyond it: the noise of an emulated guest is no disruption.
    pub floor_us: u64,
}

impl Default for Threshold {
    fn default() -> Self {
        Self { factor: 5.0, floor_us: 20_000 }
    }
}

impl Threshold {
    /// What an answer may take where the way there and back takes `round_trip_us` and an answer `median_us`.
    fn limit_us(self, round_trip_us: u64, median_us: u64) -> u64 {
        let usual_us = median_us.saturating_sub(round_trip_us);
        round_trip_us + self.floor_us.max((usual_us as f64 * self.factor) as u64)
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
    /// An answer that takes longer is late.
    pub limit_us: u64,
    /// Worst time of an answer.
    pub worst_us: u64,
    /// Time with a response later than the limit.
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
        let baseline = answer_times(&record.lines, baseline_end_us);
        let median_us = baseline.get(baseline.len() / 2).copied().unwrap_or(0);
        let limit_us = threshold.limit_us(baseline.first().copied().unwrap_or(0), median_us);
        let writers = record.disks.iter().flat_map(|disk| &disk.connections);
        let all: Vec<&Connection> = record.connections.iter().chain(writers).collect();
        let losses = || all.iter().filter_map(|connection| connection.lost.as_ref());
        let resets = losses().filter(|loss| loss.was_reset).count();
        Self {
            lines: record.lines.len() as u64,
            lost_lines: lost(&record.lines),
            longest_gap_us: longest_gap(&record.lines),
            median_us,
            limit_us,
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

/// How long the answers of the lines before `before_us` took, the fastest first.
fn answer_times(exchanges: &[Exchange], before_us: u64) -> Vec<u64> {
    let early = exchanges.iter().filter(|exchange| exchange.sent_us < before_us);
    let mut times: Vec<u64> = early.filter_map(response).collect();
    times.sort_unstable();
    times
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
        // Every other answer before the first mark takes a millisecond more, and the median is one of those.
        record.lines.iter_mut().step_by(2).for_each(|line| line.answered_us = Some(line.sent_us + 2 * MS));
        record.lines[40].answered_us = Some(record.lines[40].sent_us + 30 * MS);
        let of = |factor, floor_us| Figures::of(&record, Threshold { factor, floor_us }).disruption_us;
        assert_eq!((of(5.0, 0), of(40.0, 0), of(5.0, 40 * MS)), (50 * MS, 0, 0));
    }

    /// S4-51, S4-52: also where the way there and back takes far longer than what the guest is paused for.
    #[test]
    fn a_pause_is_disruption_however_long_the_way_is_and_nothing_of_the_difference_is_cut_off() {
        let away = |far_us: u64| {
            let mut record = record(300);
            for line in &mut record.lines {
                line.answered_us = line.answered_us.map(|answered_us| answered_us + far_us);
            }
            Figures::of(&record, Threshold::default())
        };
        let (near, far) = (away(0), away(100 * MS));
        assert_eq!((near.median_us, near.limit_us), (MS, 21 * MS));
        assert_eq!((far.median_us, far.limit_us), (101 * MS, 121 * MS));
        // The lines at 2.0, 2.05, … 2.25 s are answered at 2.301 s: all later than usual by more than 20 ms.
        assert_eq!((near.disruption_us, far.disruption_us), (300 * MS, 300 * MS));
        assert_eq!(far.additional_disruption_us(280 * MS), 20 * MS as i64);
        assert_eq!(far.additional_disruption_us(376 * MS), -76 * MS as i64);
    }

    #[test]
    fn what_an_answer_may_take_is_the_way_and_a_factor_of_the_rest() {
        let limit_us =
            |round_trip_ms, median_ms| Threshold::default().limit_us(round_trip_ms * MS, median_ms * MS) / MS;
        assert_eq!([limit_us(0, 0), limit_us(100, 100), limit_us(100, 104)], [20, 120, 120]);
        assert_eq!([limit_us(100, 105), limit_us(1, 31)], [125, 151]);
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
        let figures = Figures::of(&Record::default(), Threshold::default());
        assert_eq!(figures, Figures { limit_us: 20 * MS, ..Figures::default() });
    }
}
