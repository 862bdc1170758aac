//! Two files of records beside each other: what is slower now, what is faster, and what cannot be compared.
//!
//! Pure. Of each metric both medians are taken with their intervals ([`super::statistics`]). One is worse than the other
//! when it is so by more than the intervals: they do not touch. With a single value there is no interval, hence no
//! verdict. Peers are shown as well, because they tell what the machine did; they decide nothing.

use std::collections::BTreeMap;
use std::fmt;

use super::record::{Better, OURS, Part, Records};
use super::report::figure;
use super::statistics::{Median, median};

/// What a metric is called in a file: part, course, who, metric.
type Name = (Part, String, String, String);

#[derive(Clone, Debug, PartialEq)]
struct Series {
    conditions: String,
    unit: String,
    better: Better,
    values: Vec<f64>,
}

/// What has become of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// By more than the intervals.
    Slower,
    /// By more than the intervals.
    Faster,
    /// The intervals touch.
    Same,
    /// A single value on one side.
    NoInterval,
    /// Other sizes, links or lengths.
    OtherConditions,
    /// It was not measured in the other file.
    OnlyHere,
    /// It is not measured any more.
    OnlyThere,
}

impl Change {
    const fn words(self) -> &'static str {
        match self {
            Change::Slower => "WORSE by more than the interval",
            Change::Faster => "better by more than the interval",
            Change::Same => "the same within the interval",
            Change::NoInterval => "not judged: a single value has no interval",
            Change::OtherConditions => "not compared: other conditions",
            Change::OnlyHere => "only here: the other file does not have it",
            Change::OnlyThere => "only in the other file",
        }
    }
}

/// One metric in both files.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Part, course, who, metric.
    pub name: (Part, String, String, String),
    /// The verdict.
    pub change: Change,
    /// Its unit.
    pub unit: String,
    /// Before and now, where both are known.
    pub medians: Option<(Median, Median)>,
}

/// The whole comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What differs about the machines, if anything.
    pub machines: Option<String>,
    /// The worst first, then by name.
    pub lines: Vec<Line>,
}

impl Comparison {
    /// How much of ours is worse.
    pub fn slower(&self) -> usize {
        self.lines.iter().filter(|line| line.change == Change::Slower && line.name.2 == OURS).count()
    }
}

/// Compares complete runs: `before` is the other file, `now` are our own records.
pub fn compare(before: &Records, now: &Records) -> Comparison {
    let (old, new) = (series(before), series(now));
    let mut lines: Vec<Line> = new.iter().map(|(name, now)| line(name, old.get(name), now)).collect();
    lines.extend(old.iter().filter(|(name, _)| !new.contains_key(*name)).map(|(name, series)| Line {
        name: name.clone(),
        change: Change::OnlyThere,
        unit: series.unit.clone(),
        medians: None,
    }));
    // The sort is stable: within a verdict the names stay in order.
    lines.sort_by_key(|line| (line.change, line.name.2 != OURS));
    Comparison { machines: machines(before, now), lines }
}

fn series(records: &Records) -> BTreeMap<Name, Series> {
    let mut found: BTreeMap<Name, Series> = BTreeMap::new();
    for record in &records.0 {
        for value in &record.figures {
            let name = (record.part, record.course.clone(), value.who.clone(), value.metric.clone());
            let new = || Series {
                conditions: record.conditions.clone(),
                unit: value.unit.clone(),
                better: value.better,
                values: Vec::new(),
            };
            found.entry(name).or_insert_with(new).values.push(value.value);
        }
    }
    found
}

fn line(name: &Name, before: Option<&Series>, now: &Series) -> Line {
    let (name, unit) = (name.clone(), now.unit.clone());
    let Some(before) = before else { return Line { name, change: Change::OnlyHere, unit, medians: None } };
    if (&before.conditions, &before.unit) != (&now.conditions, &now.unit) || before.better != now.better {
        return Line { name, change: Change::OtherConditions, unit, medians: None };
    }
    let medians = (median(&before.values), median(&now.values));
    let change = match before.values.len().min(now.values.len()) {
        1 => Change::NoInterval,
        _ => change(medians.0, medians.1, now.better),
    };
    Line { name, change, unit, medians: Some(medians) }
}

/// What has become of a figure whose intervals are known.
fn change(before: Median, now: Median, better: Better) -> Change {
    let (rose, fell) = (now.low > before.high, now.high < before.low);
    match (better, rose, fell) {
        (Better::Less, true, _) | (Better::More, _, true) => Change::Slower,
        (Better::Less, _, true) | (Better::More, true, _) => Change::Faster,
        _ => Change::Same,
    }
}

fn machines(before: &Records, now: &Records) -> Option<String> {
    let named = |records: &Records| {
        let mut names: Vec<&str> = records.0.iter().map(|record| record.stamp.machine.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.join("; ")
    };
    let (before, now) = (named(before), named(now));
    (before != now).then(|| format!("The machines differ: {before} before, {now} now."))
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, course, who, metric) = &self.name;
        write!(f, "{part}, {course}, {who}, {metric}")?;
        if let Some((before, now)) = self.medians {
            let times = now.middle / before.middle;
            write!(f, ", {}: {} before, {} now", self.unit, figure(before), figure(now))?;
            if times.is_finite() {
                write!(f, ", {times:.2} times")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(machines) = &self.machines {
            writeln!(f, "{machines}")?;
        }
        let mut last = None;
        for line in &self.lines {
            if last.replace(line.change) != Some(line.change) {
                writeln!(f, "\n{}:", line.change.words())?;
            }
            writeln!(f, "  {line}")?;
        }
        let judged = |change| self.lines.iter().filter(|l| l.change == change && l.name.2 == OURS).count();
        let (faster, same) = (judged(Change::Faster), judged(Change::Same));
        match self.slower() {
            0 => write!(f, "\nNothing of ours is slower")?,
            slower => write!(f, "\nSLOWER: {slower} of our figures")?,
        }
        writeln!(f, " ({faster} faster, {same} the same, all by the interval).")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::{FORMAT, Figure, Record, Stamp};

    fn records(course: &str, figures: &[(&str, &str, Better, &[f64])]) -> Records {
        let count = figures.iter().map(|figure| figure.3.len()).max().unwrap_or(0);
        let pair = |index: usize| {
            let values = figures.iter().filter_map(|(who, metric, better, values)| {
                let make = if *better == Better::Less { Figure::less } else { Figure::more };
                values.get(index).map(|value| make(who, metric, "s", *value))
            });
            Record {
                format: FORMAT,
                part: Part::Link,
                course: course.to_owned(),
                conditions: "small".to_owned(),
                run: 1,
                pair: index + 1,
                pairs: count,
                stamp: Stamp {
                    programs: "a".to_owned(),
                    version: "1".to_owned(),
                    machine: "m".to_owned(),
                    peers: "p".to_owned(),
                },
                when: "then".to_owned(),
                exceeded_min: None,
                figures: values.collect(),
                notes: BTreeMap::new(),
            }
        };
        Records((0..count).map(pair).collect())
    }

    fn one(better: Better, values: &[f64]) -> Records {
        records("c", &[(OURS, "m", better, values)])
    }

    fn only(better: Better, before: &[f64], now: &[f64]) -> Change {
        let found = compare(&one(better, before), &one(better, now));
        assert_eq!(found.lines.len(), 1);
        assert_eq!(found.slower(), usize::from(found.lines[0].change == Change::Slower));
        found.lines[0].change
    }

    #[test]
    fn intervals_that_do_not_touch_decide_and_by_the_side_that_is_better() {
        use Better::{Less, More};
        // 10 to 12 before, 12.5 to 14 now.
        assert_eq!(only(Less, &[10.0, 11.0, 12.0], &[14.0, 12.5, 13.0]), Change::Slower);
        assert_eq!(only(More, &[10.0, 11.0, 12.0], &[14.0, 12.5, 13.0]), Change::Faster);
        assert_eq!(only(Less, &[14.0, 12.5, 13.0], &[10.0, 11.0, 12.0]), Change::Faster);
        assert_eq!(only(More, &[14.0, 12.5, 13.0], &[10.0, 11.0, 12.0]), Change::Slower);
        // The ends touch: 12 is in both.
        assert_eq!(only(Less, &[10.0, 11.0, 12.0], &[12.0, 13.0, 14.0]), Change::Same);
        assert_eq!(only(More, &[10.0, 11.0, 12.0], &[10.0, 11.0, 12.0]), Change::Same);
    }

    #[test]
    fn with_many_values_outliers_are_outside_of_the_interval() {
        // Of twenty the interval is from the 6th to the 15th: 6 to 15 before. Now 16 to 25, with outliers below.
        let before: Vec<f64> = (1..=20).map(f64::from).collect();
        let now: Vec<f64> = (11..=30).map(f64::from).collect();
        assert_eq!(only(Better::Less, &before, &now), Change::Slower);
        // 15 to 24: the ends touch.
        let now: Vec<f64> = (10..=29).map(f64::from).collect();
        assert_eq!(only(Better::Less, &before, &now), Change::Same);
    }

    #[test]
    fn a_single_value_is_shown_and_not_judged() {
        assert_eq!(only(Better::Less, &[1.0], &[9.0]), Change::NoInterval);
        assert_eq!(only(Better::Less, &[1.0, 2.0], &[9.0]), Change::NoInterval);
        let found = compare(&one(Better::Less, &[2.0]), &one(Better::Less, &[3.0]));
        assert_eq!(
            found.lines[0].to_string(),
            "link, c, ours, m, s: 2.00 (2.00 to 2.00) before, 3.00 (3.00 to 3.00) now, 1.50 times"
        );
    }

    #[test]
    fn a_slower_peer_is_shown_and_is_not_ours() {
        let both = |ours: &[f64], peer: &[f64]| {
            records("c", &[(OURS, "m", Better::Less, ours), ("peer", "m", Better::Less, peer)])
        };
        let found = compare(&both(&[1.0, 2.0], &[1.0, 2.0]), &both(&[1.0, 2.0], &[3.0, 4.0]));
        let told: Vec<_> = found.lines.iter().map(|line| (line.name.2.as_str(), line.change)).collect();
        assert_eq!(told, [("peer", Change::Slower), (OURS, Change::Same)]);
        assert_eq!(found.slower(), 0);
        let found = compare(&both(&[1.0, 2.0], &[1.0, 2.0]), &both(&[3.0, 4.0], &[3.0, 4.0]));
        assert_eq!(found.lines[0].name.2, OURS, "ours comes first");
        assert!(
            found
                .to_string()
                .ends_with("SLOWER: 1 of our figures (0 faster, 0 the same, all by the interval).\n")
        );
    }

    #[test]
    fn what_only_one_of_both_has_is_named() {
        let found =
            compare(&records("old", &[(OURS, "m", Better::Less, &[1.0, 2.0])]), &one(Better::Less, &[1.0]));
        let told: Vec<_> = found.lines.iter().map(|line| (line.name.1.as_str(), line.change)).collect();
        assert_eq!(told, [("c", Change::OnlyHere), ("old", Change::OnlyThere)]);
        let text = found.to_string();
        assert!(text.contains("the other file does not have it:\n  link, c, ours, m\n"), "{text}");
        assert!(text.contains("\nonly in the other file:\n  link, old, ours, m\n"), "{text}");
        assert!(text.contains("Nothing of ours is slower"), "{text}");
    }

    #[test]
    fn other_conditions_are_not_compared_and_another_machine_is_said() {
        let before = one(Better::Less, &[1.0, 2.0]);
        let mut now = one(Better::Less, &[8.0, 9.0]);
        for record in &mut now.0 {
            record.conditions = "large".to_owned();
        }
        let found = compare(&before, &now);
        assert_eq!((found.lines[0].change, found.machines), (Change::OtherConditions, None));
        for record in &mut now.0 {
            record.stamp.machine = "n".to_owned();
        }
        let said = compare(&before, &now).machines;
        assert_eq!(said.as_deref(), Some("The machines differ: m before, n now."));
    }
}
