//! Lengths of time as people write them: `500ms`, `30s`, `2m`, `1h`, `1h30m`.

use std::time::Duration;

/// Text that is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not a length of time: write a whole number and a unit, such as `500ms`, `30s`, `2m` or `1h`"
)]
pub struct NotADuration {
    given: String,
}

/// No length of time in a runbook may be longer: ten years.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Reads `500ms`, `30s`, `2m`, `1h`, `1d` and sums of them, largest unit first (`1h30m`).
pub fn parse(given: &str) -> Result<Duration, NotADuration> {
    let bad = || NotADuration { given: given.chars().take(40).collect() };
    let mut rest = given;
    let mut total: u64 = 0;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        if unit >= last_unit {
            return Err(bad());
        }
        last_unit = unit;
        total = number.checked_mul(unit).and_then(|ms| total.checked_add(ms)).ok_or_else(bad)?;
        rest = &rest[letters..];
    }
    let parsed = Duration::from_millis(total);
    if given.is_empty() || parsed > LONGEST { Err(bad()) } else { Ok(parsed) }
}

/// Writes a length of time in the one largest unit that keeps it exact: `90s`, `2m`, `1h`, `1500ms`.
pub fn format(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms > 0 && ms.is_multiple_of(unit) {
            return format!("{}{name}", ms / unit);
        }
    }
    if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_formatted_reads_back() {
        for text in ["500ms", "30s", "2m", "1h", "90s", "0s", "25h"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(parse("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse("1d").unwrap(), Duration::from_secs(86400));
    }

    #[test]
    fn other_text_is_refused() {
        for text in
            ["", "30", "s", "-1s", "1.5h", "30 s", "1m1h", "1s1s", "99999999999999999999s", "20000d", "1w"]
        {
            assert!(parse(text).is_err(), "{text} was read");
        }
    }
}
