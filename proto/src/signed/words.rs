//! Small things that several formats share: names, times, risks.

use fettle_runbooks::runbook::Risk;
use jiff::Timestamp;

use super::json::{Malformed, Members};

/// All risks, lowest first.
pub const RISKS: [Risk; 5] = [Risk::Read, Risk::Low, Risk::Medium, Risk::High, Risk::Critical];

/// The word of a risk, as runbooks write it.
pub const fn risk_word(risk: Risk) -> &'static str {
    match risk {
        Risk::Read => "read",
        Risk::Low => "low",
        Risk::Medium => "medium",
        Risk::High => "high",
        Risk::Critical => "critical",
    }
}

/// The risk of a word.
pub fn risk_of(word: &str) -> Option<Risk> {
    RISKS.into_iter().find(|risk| risk_word(*risk) == word)
}

/// Whether this can name a person or a group: 1 to 64 letters, digits, `.`, `_`, `-` and `@`, beginning with a letter or
/// digit. No two names look alike but for case, and none can hide a control character.
pub fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte))
}

pub(crate) fn name(text: String, member: &str) -> Result<String, Malformed> {
    if is_name(&text) {
        Ok(text)
    } else {
        Err(Malformed::value(
            member,
            "expected a name: 1 to 64 letters, digits, `.`, `_`, `-`, `@`, beginning with a letter or digit",
        ))
    }
}

pub(crate) fn risk(members: &mut Members, member: &'static str) -> Result<Risk, Malformed> {
    let word = members.text(member)?;
    risk_of(&word).ok_or_else(|| {
        Malformed::value(member, "expected one of `read`, `low`, `medium`, `high`, `critical`")
    })
}

/// A time in its one spelling, `2026-11-21T18:00:00Z`.
pub(crate) fn time(members: &mut Members, member: &'static str) -> Result<Timestamp, Malformed> {
    let text = members.text(member)?;
    text.parse::<Timestamp>()
        .ok()
        .filter(|time| time.to_string() == text)
        .ok_or_else(|| Malformed::value(member, "expected a time in UTC such as `2026-11-21T18:00:00Z`"))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of lower-case hex of exactly this many bytes.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

pub(crate) fn count(number: u64, member: &str) -> Result<u32, Malformed> {
    u32::try_from(number).map_err(|_| Malformed::value(member, "too large"))
}

/// Milliseconds since the Unix epoch, as messages carry times; out of range is the nearest time there is.
pub fn from_ms(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
