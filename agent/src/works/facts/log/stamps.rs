//! When a line of a log was written, by the stamp that it begins with.
//!
//! | Form | Written by |
//! | --- | --- |
//! | `2026-11-21T21:00:01.5+02:00`, `2026-11-21 21:00:01,123`, also in `[ ]`, `"…"`, or after `time=`, `ts=` | most |
//! | `2026/11/21 21:00:01` | nginx's errors, Go |
//! | `Nov 21 21:00:01` | syslog |
//! | `[Sat Nov 21 21:00:01.5 2026]` | Apache's errors |
//! | `… - - [21/Nov/2026:21:00:01 +0100]` | access logs |
//! | `{"time":"2026-11-21T21:00:01Z"` and `"ts"`, `"timestamp"`, `"@timestamp"` | logs in JSON |
//!
//! Only the beginning of a line is looked at: a date in its text says nothing about the line.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

/// A point in time as a line tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stamp {
    time: DateTime,
    zone: Option<Offset>,
    /// The year is not told.
    yearless: bool,
}

/// What a stamp means that names no zone.
#[derive(Clone, Debug)]
pub(super) struct Zone(TimeZone);

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl Zone {
    pub(super) fn utc() -> Zone {
        Zone(TimeZone::UTC)
    }

    /// This host's; UTC where it has none.
    pub(super) fn local() -> Zone {
        let bytes = std::fs::read("/etc/localtime").unwrap_or_default();
        Zone(TimeZone::tzif("", &bytes).unwrap_or(TimeZone::UTC))
    }
}

impl Stamp {
    /// In milliseconds of the wall clock. An hour that comes twice is the later one: what is too young is looked at.
    pub(super) fn at(self, zone: &Zone, now_ms: i64) -> i64 {
        let at = |time: DateTime| {
            let offset = self.zone.unwrap_or_else(|| match zone.0.to_ambiguous_timestamp(time).offset() {
                AmbiguousOffset::Unambiguous { offset } => offset,
                AmbiguousOffset::Gap { before, .. } => before,
                AmbiguousOffset::Fold { after, .. } => after,
            });
            offset.to_timestamp(time).map_or(i64::MIN, |at| at.as_millisecond())
        };
        if !self.yearless {
            return at(self.time);
        }
        // The latest year in which it is not yet to come.
        let this =
            jiff::Timestamp::from_millisecond(now_ms).map_or(1970, |now| now.to_zoned(zone.0.clone()).year());
        let years = (this - 8..=this + 1).rev();
        let times = years.filter_map(|year| self.time.with().year(year).build().ok());
        times.map(at).find(|at| *at <= now_ms.saturating_add(DAY_MS)).unwrap_or(i64::MIN)
    }
}

/// The stamp of a line, if it begins with one.
pub(super) fn of(line: &str) -> Option<Stamp> {
    let line = &line.as_bytes()[..line.len().min(256)];
    let start = line.trim_ascii_start();
    if start.first() == Some(&b'{') {
        return json(start);
    }
    let mut text = Text(start);
    // `<34>` of syslog's own form, and its version.
    if text.took(b'<') {
        text.digits(1, 3)?;
        text.took(b'>').then_some(())?;
        if text.0.starts_with(b"1 ") {
            text.0 = &text.0[2..];
        }
    }
    text.word(b"time=").or_else(|| text.word(b"ts=")).unwrap_or_default();
    let _ = text.took(b'[') || text.took(b'"');
    let text = text;
    numbers(text).or_else(|| names(text)).or_else(|| access(start))
}

/// `2026-11-21T21:00:01`, `2026/11/21 21:00:01`.
fn numbers(mut text: Text<'_>) -> Option<Stamp> {
    let year = text.digits(4, 4)?;
    let between = if text.took(b'-') { b'-' } else { text.took(b'/').then_some(b'/')? };
    let month = text.digits(2, 2)?;
    text.took(between).then_some(())?;
    let day = text.digits(2, 2)?;
    (text.took(b'T') || text.took(b' ') || text.took(b't')).then_some(())?;
    let time = text.clock(year, month, day)?;
    Some(Stamp { time, zone: text.zone(), yearless: false })
}

/// `Nov 21 21:00:01`, `Sat Nov 21 21:00:01.123 2026`.
fn names(mut text: Text<'_>) -> Option<Stamp> {
    let days: [&[u8]; 7] = [b"Mon ", b"Tue ", b"Wed ", b"Thu ", b"Fri ", b"Sat ", b"Sun "];
    let named = days.iter().any(|day| text.word(day).is_some());
    let month = text.month()?;
    text.took(b' ').then_some(())?;
    text.took(b' ');
    let day = text.digits(1, 2)?;
    text.took(b' ').then_some(())?;
    // A leap year, so that the 29th of February is a day.
    let time = text.clock(2000, month, day)?;
    let mut rest = text;
    let year = if named && rest.took(b' ') { rest.digits(4, 4) } else { None };
    match year {
        Some(year) => {
            let time = time.with().year(i16::try_from(year).ok()?).build().ok()?;
            Some(Stamp { time, zone: None, yearless: false })
        }
        None => Some(Stamp { time, zone: None, yearless: true }),
    }
}

/// `192.0.2.1 - ana [21/Nov/2026:21:00:01 +0100] "GET …`.
fn access(line: &[u8]) -> Option<Stamp> {
    // The last before the request: whoever asks chooses the user's name, and servers write `"` in it as `\"` or `\x22`.
    let quote = |at: &usize| line[*at] == b'"' && line[..*at].last() != Some(&b'\\');
    let request = (0..line.len()).find(quote)?;
    let before = line[..request].iter().rposition(|byte| *byte == b'[')?;
    if line[..before].split(|byte| *byte == b' ').count() < 4 {
        return None;
    }
    let mut text = Text(&line[before + 1..]);
    let day = text.digits(2, 2)?;
    text.took(b'/').then_some(())?;
    let month = text.month()?;
    text.took(b'/').then_some(())?;
    let year = text.digits(4, 4)?;
    text.took(b':').then_some(())?;
    let time = text.clock(year, month, day)?;
    Some(Stamp { time, zone: text.zone(), yearless: false })
}

/// The first of the names that a time has in JSON, near the beginning.
fn json(line: &[u8]) -> Option<Stamp> {
    let names: [&[u8]; 5] = [b"\"time\":", b"\"ts\":", b"\"timestamp\":", b"\"@timestamp\":", b"\"t\":"];
    let found = (0..line.len()).find_map(|at| {
        names.iter().find_map(|name| line[at..].strip_prefix(*name)).map(<[u8]>::trim_ascii_start)
    })?;
    numbers(Text(found.strip_prefix(b"\"")?))
}

/// What is left of a line's beginning.
#[derive(Clone, Copy)]
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn took(&mut self, byte: u8) -> bool {
        let took = self.0.first() == Some(&byte);
        if took {
            self.0 = &self.0[1..];
        }
        took
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<u32> {
        let found = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        (found >= least).then_some(())?;
        let (digits, rest) = self.0.split_at(found);
        self.0 = rest;
        Some(digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
    }

    fn month(&mut self) -> Option<u32> {
        let names = b"JanFebMarAprMayJunJulAugSepOctNovDec";
        let (name, rest) = self.0.split_at_checked(3)?;
        let at = names.chunks(3).position(|month| month == name)?;
        self.0 = rest;
        u32::try_from(at + 1).ok()
    }

    /// `21:00:01`, with what is smaller than a second left out.
    fn clock(&mut self, year: u32, month: u32, day: u32) -> Option<DateTime> {
        let hour = self.digits(1, 2)?;
        self.took(b':').then_some(())?;
        let minute = self.digits(2, 2)?;
        self.took(b':').then_some(())?;
        let second = self.digits(2, 2)?.min(59); // A leap second is the one before.
        if matches!(self.0, [b'.' | b',', digit, ..] if digit.is_ascii_digit()) {
            self.0 = &self.0[1..];
            self.digits(1, 9)?;
        }
        let small = |number: u32| i8::try_from(number).ok();
        let year = i16::try_from(year).ok()?;
        DateTime::new(year, small(month)?, small(day)?, small(hour)?, small(minute)?, small(second)?, 0).ok()
    }

    /// `Z`, `+02:00`, ` +0200`, ` UTC`; anything else is no zone.
    fn zone(mut self) -> Option<Offset> {
        if self.took(b'Z') || self.took(b'z') {
            return Some(Offset::UTC);
        }
        self.took(b' ');
        if self.0.starts_with(b"UTC") || self.0.starts_with(b"GMT") {
            return Some(Offset::UTC);
        }
        let sign = if self.took(b'+') { 1 } else { self.took(b'-').then_some(-1)? };
        let hours = self.digits(2, 2)?;
        self.took(b':');
        let minutes = self.digits(2, 2).unwrap_or(0);
        let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
        Offset::from_seconds(sign * seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T21:00:01Z
    const AT: i64 = 1_795_294_801_000;

    fn at(line: &str) -> Option<i64> {
        Some(of(line)?.at(&Zone::utc(), AT + 5000))
    }

    #[test]
    fn every_form_of_the_table_is_understood() {
        let lines = [
            "2026-11-21T21:00:01Z x",
            "2026-11-21T21:00:01.123456789Z x",
            "2026-11-21 21:00:01 x",
            "2026-11-21 21:00:01,123 x",
            "2026-11-21 21:00:01.123 UTC [12] LOG: x",
            "2026-11-21T23:00:01+02:00 x",
            "2026-11-21 16:00:01 -0500 x",
            "[2026-11-21T21:00:01+00:00] x",
            "[2026-11-21 21:00:01] x",
            "  2026-11-21T21:00:01Z x",
            "time=\"2026-11-21T21:00:01Z\" level=info",
            "ts=2026-11-21T21:00:01.5Z caller=x",
            "2026/11/21 21:00:01 [error] 7#7: x",
            "Nov 21 21:00:01 host app[1]: x",
            "<34>Nov 21 21:00:01 host app[1]: x",
            "<34>1 2026-11-21T21:00:01Z host app x",
            "[Sat Nov 21 21:00:01.123456 2026] [core:error] x",
            "[Sat Nov 21 21:00:01 2026] [error] x",
            "192.0.2.1 - - [21/Nov/2026:21:00:01 +0000] \"GET / HTTP/1.1\" 200 2",
            "www.example.com 192.0.2.1 - ana [21/Nov/2026:22:00:01 +0100] \"GET / HTTP/1.1\" 200 2",
            "{\"level\":\"info\",\"time\":\"2026-11-21T21:00:01Z\",\"msg\":\"x\"}",
            "{\"@timestamp\": \"2026-11-21T21:00:01.000Z\"}",
        ];
        for line in lines {
            assert_eq!(at(line), Some(AT), "{line}");
        }
        assert_eq!(at("Nov  2 21:00:01 host x"), Some(AT - 19 * DAY_MS));
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        let lines = [
            "",
            "x",
            "expires 2027-01-01 00:00:00",
            "\tat Main.java 2026-11-21 21:00:01",
            "2026-13-21T21:00:01Z",
            "2026-02-30 21:00:01",
            "2026-11-21",
            "2026-11-21 25:00:01",
            "99999-11-21 21:00:01",
            "Nov 99 21:00:01",
            "Nov",
            "\"GET / [21/Nov/2026:21:00:01 +0000]\"",
            "[21/Nov/2026",
            "{\"msg\":\"2026-11-21T21:00:01Z\"}",
            "ñ ñ ñ ñ [ñ",
        ];
        for line in lines {
            assert_eq!(at(line), None, "{line}");
        }
    }

    #[test]
    fn a_stamp_without_a_year_is_of_the_latest_that_is_not_to_come() {
        let now = "2026-01-02T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let at = |line: &str| {
            let ms = of(line).unwrap().at(&Zone::utc(), now);
            jiff::Timestamp::from_millisecond(ms).unwrap().to_string()
        };
        assert_eq!(at("Dec 31 23:59:59 x"), "2025-12-31T23:59:59Z");
        assert_eq!(at("Jan  1 00:00:00 x"), "2026-01-01T00:00:00Z");
        assert_eq!(at("Jan  2 12:00:00 x"), "2026-01-02T12:00:00Z");
        assert_eq!(at("Feb 29 12:00:00 x"), "2024-02-29T12:00:00Z");
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "\\PC{0,300}") {
            at(&line);
        }

        #[test]
        fn nothing_like_a_stamp_makes_it_panic(line in "[\\[{<]?(19|20)?[0-9]{0,3}[-/ ]?(Nov|[0-9]{0,3})[-/ ][0-9]{0,3}[T: ][0-9:,.+Z -]{0,30}") {
            at(&line);
        }
    }
}
