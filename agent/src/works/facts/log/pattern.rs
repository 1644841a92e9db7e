//! A pattern, matched quickly where most lines do not match.
//!
//! The matcher of patterns is small and takes a hundred times as long as a search for plain text: seconds for a large log. Most
//! patterns cannot match without a certain text in the line (`connection (refused|reset)` without `connection `), so that is
//! looked for first. What is found so only ever leaves out lines that could not match.

use fettle_runbooks::input::limited_regex;

#[derive(Debug)]
pub(super) struct Pattern {
    /// One of these is in every line that matches; empty if that cannot be told.
    needs: Vec<String>,
    /// Absent where the pattern is plain text.
    regex: Option<regex_lite::Regex>,
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Pattern, String> {
        let regex = limited_regex(pattern).map_err(|error| format!("the pattern is broken: {error}"))?;
        let plain = !pattern.is_empty() && regex_lite::escape(pattern) == pattern;
        let needs = if plain { vec![pattern.to_owned()] } else { needs(pattern).unwrap_or_default() };
        Ok(Pattern { needs, regex: (!plain).then_some(regex) })
    }

    pub(super) fn is_in(&self, line: &str) -> bool {
        let may = self.needs.is_empty() || self.needs.iter().any(|text| line.contains(text.as_str()));
        may && self.regex.as_ref().is_none_or(|regex| regex.is_match(line))
    }
}

/// Texts one of which is in whatever the pattern matches: the longest of each alternative. Nothing where one has none.
fn needs(pattern: &str) -> Option<Vec<String>> {
    // `(?i)` and its like change what the rest means.
    if pattern.contains("(?") {
        return None;
    }
    let mut branches = vec![Vec::new()];
    let mut run = String::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        let literal = match c {
            '\\' => match rest.next()? {
                // A class, an anchor, a code: not a character that stands for itself.
                escaped if escaped.is_ascii_alphanumeric() || escaped == '<' || escaped == '>' => {
                    return None;
                }
                escaped => Some(escaped),
            },
            '(' | '[' => {
                skip(c, &mut rest)?;
                None
            }
            '|' => {
                branches.last_mut()?.push(std::mem::take(&mut run));
                branches.push(Vec::new());
                continue;
            }
            '.' | '^' | '$' => None,
            '*' | '?' | '+' | '{' | '}' | ')' | ']' => return None,
            plain => Some(plain),
        };
        let mut repeats = String::new();
        while let Some(sign) = rest.next_if(|c| matches!(c, '*' | '?' | '+' | '{')) {
            repeats.push(sign);
        }
        match (repeats.as_str(), literal) {
            ("", Some(literal)) => {
                run.push(literal);
                continue;
            }
            // Once or more often: nothing is certain to follow on it.
            ("+" | "+?", once) => run.extend(once),
            (repeats, _) if repeats.contains('{') => return None,
            // What may be absent is not needed.
            (_, _) => {}
        }
        branches.last_mut()?.push(std::mem::take(&mut run));
    }
    branches.last_mut()?.push(run);
    let longest = branches.into_iter().map(|runs| runs.into_iter().max_by_key(String::len));
    longest.map(|run| run.filter(|run| !run.is_empty())).collect()
}

/// Goes past a group or a class.
fn skip(open: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<()> {
    if open == '[' {
        rest.next_if_eq(&'^');
        rest.next_if_eq(&']');
    }
    loop {
        match rest.next()? {
            '\\' => drop(rest.next()?),
            // Classes within classes are seldom; groups within groups are not.
            '[' if open == '[' => return None,
            inner @ ('(' | '[') => skip(inner, rest)?,
            ')' if open == '(' => return Some(()),
            ']' if open == '[' => return Some(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_every_match_contains_is_found() {
        let told = |pattern: &str| needs(pattern).map(|needs| needs.join("|"));
        assert_eq!(told("ERROR|panic"), Some("ERROR|panic".into()));
        assert_eq!(told("connection (refused|reset)"), Some("connection ".into()));
        assert_eq!(told("^.*time ?out.*$"), Some("time".into()));
        assert_eq!(told("abb+c*d"), Some("abb".into()));
        assert_eq!(told(r"10\.0\.0\.1"), Some("10.0.0.1".into()));
        assert_eq!(told("[0-9]+ms status=5[0-9][0-9]"), Some("ms status=5".into()));
        for unknown in
            ["(?i)error", "error|", ".*", r"\d+ errors", "(a|b)", "a{0}", "", "x?", "[[:alpha:]]a", "(a"]
        {
            assert_eq!(told(unknown), None, "{unknown}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_line_that_matches_is_left_out(
            pattern in r"(\^?[ab.]?[ab(\[|)\]*?+\\.]{0,7}[ab|)\]*?+$]?)|(([ab]|[ab]\*|\(a\|b\)|[ab]\+|[ab]\?|\[ab\]|\[\^a\]|\||\\\.|\.){0,7})",
            line in "[ab. ]{0,12}",
        ) {
            if let Ok(found) = Pattern::new(&pattern) {
                let regex = limited_regex(&pattern).unwrap();
                prop_assert_eq!(found.is_in(&line), regex.is_match(&line), "{} {:?}", pattern, found);
            }
        }
    }
}
