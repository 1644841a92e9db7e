//! What is risky in a shell script: variables without quotes, which are split and globbed, and `eval`.
//!
//! A reader of shell words, not of shell: it knows quotes, comments, here-documents, arithmetic and substitutions well
//! enough to say where a variable stands bare. Where it is unsure it stays silent.

/// Something to look at.
pub(super) struct Warning {
    pub(super) code: &'static str,
    /// In bytes of the script.
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) message: String,
    pub(super) help: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Plain,
    Double,
    /// `$(( … ))` and `[[ … ]]`, where nothing is split.
    Unsplit(&'static str),
    /// `$( … )`; the text in it is plain again.
    Substitution,
}

/// The uses of the step's own variables without quotes, each name once, and what evaluates text.
pub(super) fn warnings(script: &str, names: &[String]) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = Vec::new();
    let mut told: Vec<&str> = Vec::new();
    let mut stack = vec![Inside::Plain];
    let mut heredocs: Vec<String> = Vec::new();
    let mut at = 0;
    while at < script.len() {
        let rest = &script[at..];
        let inside = stack.last().copied().unwrap_or(Inside::Plain);
        let c = rest.chars().next().unwrap_or(' ');
        let plain = matches!(inside, Inside::Plain | Inside::Substitution);
        let word_start =
            script[..at].chars().next_back().is_none_or(|c| c.is_whitespace() || ";&|(".contains(c));
        let step = match c {
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '\'' if inside != Inside::Double => rest[1..].find('\'').map_or(rest.len(), |end| end + 2),
            '#' if plain && word_start => rest.find('\n').unwrap_or(rest.len()),
            '"' => {
                if inside == Inside::Double {
                    stack.pop();
                } else {
                    stack.push(Inside::Double);
                }
                1
            }
            '<' if plain && rest.starts_with("<<") && !rest.starts_with("<<<") => {
                let word = rest[2..].trim_start_matches('-').trim_start_matches([' ', '\t']);
                let end =
                    word.find(|c: char| c.is_whitespace() || ";&|<>)".contains(c)).unwrap_or(word.len());
                heredocs.push(word[..end].replace(['\'', '"', '\\'], ""));
                rest.len() - word.len() + end
            }
            '\n' if !heredocs.is_empty() => {
                let mut end = at + 1;
                for word in heredocs.drain(..) {
                    while end < script.len() {
                        let line = script[end..].split_inclusive('\n').next().unwrap_or("");
                        end += line.len();
                        if line.trim() == word {
                            break;
                        }
                    }
                }
                end - at
            }
            '[' if plain && rest.starts_with("[[") && word_start => {
                stack.push(Inside::Unsplit("]]"));
                2
            }
            '$' if rest.starts_with("$((") => {
                stack.push(Inside::Unsplit("))"));
                3
            }
            '$' if rest.starts_with("$(") => {
                stack.push(Inside::Substitution);
                2
            }
            ')' if inside == Inside::Substitution => {
                stack.pop();
                1
            }
            '(' if plain => {
                stack.push(Inside::Substitution);
                1
            }
            '$' => {
                let (name, length) = variable(rest);
                let known = names.iter().find(|known| *known == name);
                if let Some(known) =
                    known.filter(|known| plain && !assigned(script, at) && !told.contains(&known.as_str()))
                {
                    told.push(known);
                    warnings.push(Warning {
                        code: "unquoted-variable",
                        from: at,
                        to: at + length,
                        message: format!(
                            "`{}` without quotes is split at blanks and its `*` are replaced by file names",
                            &rest[..length]
                        ),
                        help: format!("write \"{}\"", &rest[..length]),
                    });
                }
                length
            }
            _ => match inside {
                Inside::Unsplit(end) if rest.starts_with(end) => {
                    stack.pop();
                    end.len()
                }
                Inside::Plain | Inside::Double | Inside::Substitution | Inside::Unsplit(_) => {
                    if plain && word_start && evaluates(rest) && !names.is_empty() && !told.contains(&"eval")
                    {
                        told.push("eval");
                        warnings.push(Warning {
                            code: "eval",
                            from: at,
                            to: at + 4,
                            message: "`eval` makes code of text, also of the values this script is given"
                                .to_owned(),
                            help: "write the command itself, with \"$NAME\" for the values".to_owned(),
                        });
                    }
                    c.len_utf8()
                }
            },
        };
        at += step.max(1);
        while !script.is_char_boundary(at.min(script.len())) {
            at += 1;
        }
    }
    warnings
}

fn evaluates(rest: &str) -> bool {
    rest.strip_prefix("eval").is_some_and(|after| after.starts_with([' ', '\t']))
}

/// The name after a `$`, and how long it is with it.
fn variable(rest: &str) -> (&str, usize) {
    let named =
        |text: &str| text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    match rest[1..].strip_prefix('{') {
        Some(inner) => {
            let name = &inner[..named(inner)];
            (name, inner.find('}').map_or(2 + name.len(), |end| end + 3))
        }
        None => {
            let end = named(&rest[1..]);
            (&rest[1..1 + end], 1 + end)
        }
    }
}

/// Whether it stands on the right of an assignment or after `case`, where nothing is split.
fn assigned(script: &str, at: usize) -> bool {
    let word_from =
        script[..at].rfind(|c: char| c.is_whitespace() || ";&|(".contains(c)).map_or(0, |place| place + 1);
    let word = &script[word_from..at];
    let before = script[..word_from].trim_end();
    let name = word.split('=').next().unwrap_or("");
    let assignment = word.contains('=')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    assignment
        || (word.is_empty()
            && (before == "case"
                || before.ends_with([' ', '\n', ';']) && before.ends_with("case")
                || before.ends_with(" case")
                || before.ends_with("\ncase")))
}
