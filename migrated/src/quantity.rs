//! Rates, sizes and times as people write and read them. Bits and bytes are never guessed at.
//!
//! ```text
//! "20Mbit" ─► 2 500 000 bytes a second        1 572 864 bytes ─► "1.5 MiB"
//! "2.5MB"  ─► 2 500 000 bytes a second        2 500 000 bytes a second ─► "20.0 Mbit/s"
//! "20Mb"   ─► refused: Mbit or MB?            65 000 ms ─► "1 min 05 s"
//! ```

use std::time::Duration;

use thiserror::Error;

/// Units of a rate, in bits.
const UNITS: [(&str, u128); 11] = [
    ("bit", 1),
    ("kbit", 1_000),
    ("Mbit", 1_000_000),
    ("Gbit", 1_000_000_000),
    ("B", 8),
    ("kB", 8_000),
    ("MB", 8_000_000),
    ("GB", 8_000_000_000),
    ("KiB", 8 << 10),
    ("MiB", 8 << 20),
    ("GiB", 8 << 30),
];
/// Digits after the point that are read.
const FRACTION_DIGITS_MAX: usize = 6;

/// Why a rate was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RateError {
    /// It does not begin with a number.
    #[error("{0:?} does not begin with a number; write it like 20Mbit or 2.5MB")]
    Number(String),
    /// A number alone.
    #[error("{0:?} has no unit; bits (kbit, Mbit, Gbit) or bytes (kB, MB, GB, KiB, MiB, GiB) a second?")]
    NoUnit(String),
    /// A unit that could be bits as well as bytes, or none at all.
    #[error(
        "{unit:?} is no unit of a rate; use bits (kbit, Mbit, Gbit) or bytes (kB, MB, GB, KiB, MiB, GiB)"
    )]
    Unit {
        /// What stands after the number.
        unit: String,
    },
    /// Less than a byte a second, or more than fits.
    #[error("{0:?} is out of range: from 1 byte a second to 1000 GB")]
    Range(String),
}

/// Reads a rate, like "20Mbit", "20 Mbit/s" or "2.5MB", in bytes a second.
pub fn parse_rate(text: &str) -> Result<u64, RateError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > FRACTION_DIGITS_MAX {
        return Err(RateError::Number(text.to_owned()));
    }
    let unit = unit.trim();
    if unit.is_empty() {
        return Err(RateError::NoUnit(text.to_owned()));
    }
    let unit = unit.strip_suffix("/s").unwrap_or(unit);
    let known = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, unit_bits) = known.ok_or_else(|| RateError::Unit { unit: unit.to_owned() })?;
    let range = || RateError::Range(text.to_owned());
    let scale = 10_u128.pow(FRACTION_DIGITS_MAX as u32);
    let whole: u128 = whole.parse().map_err(|_| range())?;
    let fraction: u128 = format!("{fraction:0<FRACTION_DIGITS_MAX$}").parse().map_err(|_| range())?;
    let scaled = whole.checked_mul(scale).and_then(|n| n.checked_add(fraction)).ok_or_else(range)?;
    let bytes = scaled.checked_mul(*unit_bits).ok_or_else(range)? / scale / 8;
    u64::try_from(bytes).ok().filter(|bytes| (1..=1_000_000_000_000).contains(bytes)).ok_or_else(range)
}

/// A size: "512 B", "1.5 MiB".
pub fn size(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A rate of bytes a second as networks count it: "20.0 Mbit/s".
pub fn rate(bytes_per_s: u64) -> String {
    scaled(bytes_per_s as f64 * 8.0, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"])
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 999.95 would be written as 1000.0 of the smaller unit.
    while value >= step - 0.05 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} {}", units[0]) } else { format!("{value:.1} {}", units[unit]) }
}

/// A duration in milliseconds, as [`time`] takes it.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A time: "312 ms", "4.2 s", "1 min 05 s", "2 h 03 min".
pub fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// How much of `total` is done when `left` is left, in percent; all of it where there is nothing to do.
pub fn percent(left: u64, total: u64) -> u64 {
    if total == 0 {
        return 100;
    }
    let done = u128::from(total.saturating_sub(left));
    u64::try_from(done * 100 / u128::from(total)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_in_bits_and_in_bytes() {
        let cases = [
            ("20Mbit", 2_500_000),
            ("20 Mbit/s", 2_500_000),
            ("2.5MB", 2_500_000),
            ("1GiB/s", 1 << 30),
            ("8bit", 1),
            ("0.5kB", 500),
            (" 100kbit ", 12_500),
            ("1000GB", 1_000_000_000_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_rate(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_rate_that_could_mean_two_things_is_refused_by_name() {
        for text in ["20Mb", "20mbit", "20MBit", "20 apples", "20Mbit/h", "1 2MB", "-1MB", "1e3MB"] {
            let error = parse_rate(text).unwrap_err();
            assert!(matches!(error, RateError::Unit { .. } | RateError::Number(_)), "{text}: {error}");
        }
        assert_eq!(parse_rate("20"), Err(RateError::NoUnit("20".into())));
        for text in ["", "MB", ".5MB", "1.MB", "1.2.3MB", "1.1234567MB"] {
            assert!(matches!(parse_rate(text), Err(RateError::Number(_))), "{text}");
        }
        for text in ["0MB", "7bit", "1001GB", "99999999999999999999999999999999999999GB"] {
            assert!(matches!(parse_rate(text), Err(RateError::Range(_))), "{text}");
        }
        assert!(parse_rate("20Mb").unwrap_err().to_string().contains("Mbit"));
    }

    #[test]
    fn sizes_rates_and_times_are_short() {
        assert_eq!(
            [0, 1023, 1024, 1536, 1 << 20, u64::MAX].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "16777216.0 TiB"]
        );
        assert_eq!([0, 100, 125, 2_500_000].map(rate), ["0 bit/s", "800 bit/s", "1.0 kbit/s", "20.0 Mbit/s"]);
        assert_eq!(
            [0, 999, 1000, 59_999, 65_000, 7_380_000].map(time),
            ["0 ms", "999 ms", "1.0 s", "59.9 s", "1 min 05 s", "2 h 03 min"]
        );
    }

    #[test]
    fn percents_count_what_is_done() {
        assert_eq!([percent(0, 0), percent(10, 10), percent(1, 3), percent(9, 3)], [100, 0, 66, 0]);
        assert_eq!(percent(1, u64::MAX), 99);
    }
}
