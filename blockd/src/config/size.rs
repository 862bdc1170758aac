//! Sizes as people write them: 512, 64M, 4KiB, 1T.

use thiserror::Error;

/// What is wrong with a size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{given:?} is not a size: {reason}; write bytes as 512, or 64K, 10M, 1G, 2T (powers of 1024)")]
pub struct InvalidSize {
    given: String,
    reason: &'static str,
}

/// Reads a size in bytes. K, M, G, T, alone or with `iB`, are powers of 1024. Powers of 1000
/// (`MB`) are refused rather than guessed at.
pub fn parse_size(given: &str) -> Result<u64, InvalidSize> {
    let refuse = |reason| InvalidSize { given: given.into(), reason };
    let digits = given.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = given.split_at(digits);
    if number.is_empty() {
        return Err(refuse("it does not begin with a number"));
    }
    let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
        "" if unit.is_empty() => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        "kB" | "KB" | "MB" | "GB" | "TB" => return Err(refuse("powers of 1000 are not used here")),
        _ => return Err(refuse("its unit is not known")),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes <= i64::MAX as u64).ok_or_else(|| refuse("it is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let cases = [
            ("0", 0),
            ("512", 512),
            ("4KiB", 4096),
            ("4k", 4096),
            ("64M", 64 << 20),
            ("10G", 10 << 30),
            ("2TiB", 2 << 40),
        ];
        for (given, bytes) in cases {
            assert_eq!(parse_size(given), Ok(bytes), "{given}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_reason() {
        let cases = [
            ("", "does not begin"),
            ("-1", "does not begin"),
            ("M", "does not begin"),
            ("iB", "does not begin"),
            ("1iB", "unit"),
            ("1.5G", "unit"),
            ("1 G", "unit"),
            ("1MB", "1000"),
            ("1X", "unit"),
            ("99999999999999999999", "too large"),
            ("9999999T", "too large"),
        ];
        for (given, reason) in cases {
            let text = parse_size(given).unwrap_err().to_string();
            assert!(text.contains(reason) && text.contains(given), "{given}: {text}");
        }
    }
}
