//! `fettle roster sign|show`: from the file a person writes to the bytes a root key signs, and back to something readable.

use std::collections::BTreeSet;
use std::path::Path;

use fettle_proto::signed::words::{risk_of, risk_word};
use fettle_proto::signed::{
    Namespace, Person, PublicKey, Roster, Rule, Scope, Signed, Trust, certificate, signer,
};
use fettle_proto::v1;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::keys::{self, Wanted};
use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{Output, Tone, print_bytes, talk, visible};

/// `roster.yaml`, as a person writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    version: u64,
    expires: String,
    #[serde(default = "one")]
    reviewers_needed: u32,
    persons: Vec<DraftPerson>,
    #[serde(default)]
    rules: Vec<DraftRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftPerson {
    name: String,
    keys: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftRule {
    risk: String,
    need: u32,
    #[serde(default)]
    from: Vec<String>,
}

const fn one() -> u32 {
    1
}

/// Reads a written roster; all problems at once.
fn read(text: &str, now: Timestamp) -> std::result::Result<Roster, Vec<String>> {
    let draft: Draft = serde_yaml::from_str(text).map_err(|error| vec![error.to_string()])?;
    let mut problems = Vec::new();
    let expires = expiry(&draft.expires, now).unwrap_or_else(|problem| {
        problems.push(problem);
        Timestamp::MAX
    });
    let persons = draft.persons.into_iter().map(|draft| person(draft, &mut problems)).collect();
    let rules = draft.rules.into_iter().filter_map(|draft| rule(draft, &mut problems)).collect();
    let roster =
        Roster { version: draft.version, expires, persons, rules, reviewers_needed: draft.reviewers_needed };
    problems.extend(roster.consistent().err().map(|error| error.to_string()));
    problems.extend(unmeetable(&roster));
    if problems.is_empty() { Ok(roster) } else { Err(problems) }
}

/// `2027-06-30` (until the end of that day) or a full RFC 3339 time.
fn expiry(text: &str, now: Timestamp) -> std::result::Result<Timestamp, String> {
    let time = text
        .parse::<Timestamp>()
        .or_else(|_| format!("{text}T23:59:59Z").parse())
        .map_err(|_| format!("expires: `{text}` is not a day such as `2027-06-30`"))?;
    if time <= now { Err(format!("expires: {time} has passed")) } else { Ok(time) }
}

fn person(draft: DraftPerson, problems: &mut Vec<String>) -> Person {
    let name = draft.name;
    let mut keys = Vec::new();
    for line in &draft.keys {
        match PublicKey::parse(line) {
            Ok(key) => {
                problems.extend(key.allowed().err().map(|refusal| format!("{name}: {}", refusal.message)));
                keys.push(key);
            }
            Err(error) => problems.push(format!("{name}: {error}")),
        }
    }
    if keys.is_empty() && draft.keys.is_empty() {
        problems.push(format!("{name}: has no key"));
    }
    let mut scopes = BTreeSet::new();
    for word in &draft.scopes {
        match word.parse::<Scope>() {
            Ok(scope) => drop(scopes.insert(scope)),
            Err(error) => problems.push(format!("{name}: {error}")),
        }
    }
    Person { name, keys, groups: draft.groups.into_iter().collect(), scopes }
}

fn rule(draft: DraftRule, problems: &mut Vec<String>) -> Option<Rule> {
    let risk = risk_of(&draft.risk);
    if risk.is_none() {
        problems.push(format!("rules: `{}` is not a risk: use low, medium, high or critical", draft.risk));
    }
    risk.map(|risk| Rule { risk, need: draft.need, from: draft.from.into_iter().collect() })
}

/// Rules that nobody could ever meet would stop every run of that risk.
fn unmeetable(roster: &Roster) -> Vec<String> {
    let approvers = |rule: &Rule| {
        let able = roster.persons.iter().filter(|person| person.scopes.contains(&Scope::Approve));
        able.filter(|person| rule.from.is_empty() || !rule.from.is_disjoint(&person.groups)).count()
    };
    let short = roster.rules.iter().filter(|rule| approvers(rule) < rule.need as usize);
    short
        .map(|rule| {
            let from = rule.from.iter().cloned().collect::<Vec<_>>().join(", ");
            let of = if from.is_empty() { String::new() } else { format!(" of {from}") };
            format!(
                "rules: risk {} needs {}{of}, and only {} may approve",
                risk_word(rule.risk),
                rule.need,
                approvers(rule)
            )
        })
        .collect()
}

pub(super) fn sign(context: &Context, file: &Path, out: Option<&Path>) -> Result<Exit> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::usage("failed to read the roster").at(file.display()).because(&error))?;
    let roster = read(&text, super::now()).map_err(|problems| {
        problems
            .into_iter()
            .fold(Error::usage("the roster has problems").at(file.display()), |error, problem| {
                error.why(problem)
            })
    })?;
    let roots = trust(context).map(|trust| trust.roots);
    let wanted = roots.as_deref().map_or(Wanted::Any, Wanted::OneOf);
    let signer = keys::signer(context, wanted).map_err(|error| {
        if error.exit() != Exit::NotAllowed {
            return error;
        }
        Error::new(
            Exit::NotAllowed,
            "this key is not a root key of the trust bundle: hosts would refuse the roster",
        )
        .fix("give a root key with --key")
    })?;
    let signed = signer.sign(Namespace::Roster, &roster.encode())?;
    let bytes = certificate::encode_signed_file(&signed)
        .ok_or_else(|| Error::new(Exit::Failed, "the signature is of a kind that files do not hold"))?;
    match out {
        Some(path) => super::files::replace(path, &bytes)?,
        None => print_bytes(&[bytes.as_slice(), b"\n"].concat())?,
    }
    talk(&format!(
        "signed roster version {}: {} persons, {} rules, until {}, by {}",
        roster.version,
        roster.persons.len(),
        roster.rules.len(),
        roster.expires,
        signer.public().fingerprint()
    ));
    Ok(Exit::Done)
}

pub(super) async fn show(context: &Context, file: Option<&Path>) -> Result<Exit> {
    let signed = match file {
        Some(file) => read_signed(file)?,
        None => in_force(context).await?,
    };
    let roster = Roster::decode(&signed.bytes)
        .map_err(|error| Error::usage("failed to read the roster").because(&error))?;
    let trust = trust(context);
    let standing = standing(&signed, &roster, trust.as_ref(), super::now());
    context.output.show(&data(&roster, &standing), || human(&roster, &standing, &context.output))?;
    Ok(if standing.is_bad() { Exit::NotAllowed } else { Exit::Done })
}

/// Reads a signed roster file.
pub(super) fn read_signed(file: &Path) -> Result<Signed> {
    let bytes = std::fs::read(file)
        .map_err(|error| Error::usage("failed to read the roster").at(file.display()).because(&error))?;
    certificate::decode_signed_file(&bytes).map_err(|error| {
        Error::usage("this is not a signed roster")
            .at(file.display())
            .because(&error)
            .fix("sign the written one with: fettle roster sign roster.yaml --out roster.json")
    })
}

/// The roster that the controller has in force. Nothing is verified yet.
pub(super) async fn in_force(context: &Context) -> Result<Signed> {
    let mut calls = connect(context).await?;
    let roster = answer(context, calls.get_roster(v1::GetRosterRequest {})).await?.roster;
    let roster = roster.ok_or_else(|| Error::new(Exit::NotFound, "the controller has no roster"))?;
    Signed::try_from(roster)
        .map_err(|error| Error::new(Exit::Failed, "failed to read the roster").because(&error))
}

/// The pinned bundle, if one is configured and readable.
fn trust(context: &Context) -> Option<Trust> {
    let bytes = std::fs::read(context.trust().ok()?).ok()?;
    Trust::decode(bytes.trim_ascii_end()).ok()
}

/// What a roster is worth.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// A root key of the pinned bundle signed it.
    Trusted,
    /// There is no bundle to check it against; the key is this one.
    Unchecked(String),
    /// Hosts refuse it.
    Refused(String),
}

impl Standing {
    fn is_bad(&self) -> bool {
        matches!(self, Standing::Refused(_))
    }
}

fn standing(signed: &Signed, roster: &Roster, trust: Option<&Trust>, now: Timestamp) -> Standing {
    let by = match signer(signed, Namespace::Roster) {
        Ok(key) => key,
        Err(refusal) => return Standing::Refused(refusal.to_string()),
    };
    let checked = trust.map(|trust| Roster::trusted(signed, trust).map(drop));
    match (checked, roster.in_force(now)) {
        (Some(Err(refusal)), _) | (_, Err(refusal)) => Standing::Refused(refusal.to_string()),
        (Some(Ok(())), Ok(())) => Standing::Trusted,
        (None, Ok(())) => Standing::Unchecked(by.fingerprint()),
    }
}

fn data(roster: &Roster, standing: &Standing) -> Value {
    json!({
        "version": roster.version,
        "expires": roster.expires.to_string(),
        "trusted": *standing == Standing::Trusted,
        "problem": match standing { Standing::Refused(why) => Some(why), Standing::Trusted | Standing::Unchecked(_) => None },
        "reviewers_needed": roster.reviewers_needed,
        "persons": roster.persons.iter().map(|person| json!({
            "name": person.name,
            "keys": person.keys.iter().map(|key| json!({
                "fingerprint": key.fingerprint(), "algorithm": key.algorithm(), "accepted": key.allowed().is_ok(),
            })).collect::<Vec<_>>(),
            "groups": person.groups,
            "scopes": person.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "rules": roster.rules.iter().map(|rule| json!({
            "risk": risk_word(rule.risk), "need": rule.need, "from": rule.from,
        })).collect::<Vec<_>>(),
    })
}

fn human(roster: &Roster, standing: &Standing, out: &Output) -> String {
    let mut lines = vec![match standing {
        Standing::Trusted => {
            format!("roster version {}, {}", roster.version, out.paint(Tone::Good, "signed by a root key"))
        }
        Standing::Unchecked(key) => format!(
            "roster version {}, signed by {key}; {}",
            roster.version,
            out.paint(Tone::Warn, "no trust bundle is configured to check that key against")
        ),
        Standing::Refused(why) => format!("roster version {}: {}", roster.version, out.paint(Tone::Bad, why)),
    }];
    lines.push(format!("expires {}", roster.expires));
    for person in &roster.persons {
        let words = |words: Vec<&str>| if words.is_empty() { "-".to_owned() } else { words.join(", ") };
        lines.push(format!(
            "\n{}\n  scopes  {}\n  groups  {}",
            out.paint(Tone::Strong, &person.name),
            words(person.scopes.iter().map(|scope| scope.as_str()).collect()),
            words(person.groups.iter().map(String::as_str).collect()),
        ));
        for key in &person.keys {
            let refused =
                key.allowed().err().map(|refusal| format!("  ({})", refusal.message)).unwrap_or_default();
            lines.push(format!("  key     {} {}{refused}", key.fingerprint(), visible(&key.algorithm())));
        }
    }
    lines.push(format!(
        "\n{}",
        out.paint(Tone::Strong, "approval, beyond the floor (medium 1, high 1, critical 2)")
    ));
    for rule in &roster.rules {
        let from = rule.from.iter().cloned().collect::<Vec<_>>().join(" or ");
        let of = if from.is_empty() { "anyone who may approve".to_owned() } else { from };
        lines.push(format!("  {} and above: {} of {of}", risk_word(rule.risk), rule.need));
    }
    lines.push(format!("  certificates of runbooks need {} reviewers", roster.reviewers_needed));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Global;

    fn now() -> Timestamp {
        "2026-11-21T18:00:00Z".parse().expect("a time")
    }

    fn line(seed: u8) -> String {
        fettle_proto::signed::PrivateKey::from_seed([seed; 32], "someone@laptop").public().line()
    }

    fn written() -> String {
        format!(
            "version: 4\nexpires: 2999-01-01\npersons:\n  - {{ name: ana, keys: ['{} ana@laptop'], groups: [dba], scopes: [start, approve] }}\n  - {{ name: ben, keys: ['{}'], scopes: [review] }}\nrules:\n  - {{ risk: high, need: 1, from: [dba] }}\n",
            line(1),
            line(2)
        )
    }

    #[test]
    fn a_written_roster_becomes_what_it_says() {
        let roster = read(&written(), now()).expect("it is good");
        assert_eq!(roster.version, 4);
        assert_eq!(roster.expires.to_string(), "2999-01-01T23:59:59Z");
        assert_eq!(roster.persons[0].scopes, [Scope::Start, Scope::Approve].into());
        assert_eq!(Roster::decode(&roster.encode()), Ok(roster));
    }

    #[test]
    fn all_problems_of_a_written_roster_are_told_at_once() {
        let text = written()
            .replace("2999-01-01", "2020-01-01")
            .replace("[review]", "[revue]")
            .replace("need: 1, from: [dba]", "need: 2, from: [dba]")
            .replace(&line(2), &line(1));
        let problems = read(&text, now()).expect_err("it is bad").join("\n");
        for part in [
            "has passed",
            "`revue` is not a scope",
            "risk high needs 2 of dba, and only 1",
            "is given to `ana`",
        ] {
            assert!(problems.contains(part), "`{part}` is missing in:\n{problems}");
        }
    }

    #[test]
    fn an_unknown_key_of_a_written_roster_is_a_mistake_and_not_ignored() {
        let problems =
            read(&written().replace("groups:", "group:"), now()).expect_err("it is bad").join("\n");
        assert!(problems.contains("unknown field `group`"), "{problems}");
    }

    #[test]
    fn a_roster_is_signed_by_a_root_key_only_and_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let key_file = |name: &str, seed: u8| {
            let path = dir.path().join(name);
            let key = fettle_proto::signed::PrivateKey::from_seed([seed; 32], name);
            std::fs::write(&path, key.to_openssh().expect("a key")).expect("writes");
            (path, key)
        };
        let (root, root_key) = key_file("root", 9);
        let (other, _) = key_file("other", 8);
        let trust = dir.path().join("trust.json");
        let bundle = Trust { ca_der: vec![1], roots: vec![root_key.public()] };
        std::fs::write(&trust, bundle.encode()).expect("writes");
        let file = dir.path().join("roster.yaml");
        std::fs::write(&file, written()).expect("writes");
        let out = dir.path().join("roster.json");

        let context = |key: &Path| {
            let config = dir.path().join("config.yaml");
            std::fs::write(&config, "").expect("writes");
            let global = Global {
                config: Some(config),
                key: Some(key.to_path_buf()),
                trust: Some(trust.clone()),
                ..Global::default()
            };
            Context::new(&global).expect("a context")
        };
        assert_eq!(
            sign(&context(&other), &file, Some(&out)).expect_err("no root key").exit(),
            Exit::NotAllowed
        );
        assert!(!out.exists());
        sign(&context(&root), &file, Some(&out)).expect("signs");
        let signed = read_signed(&out).expect("reads");
        let roster = Roster::trusted(&signed, &bundle).expect("trusted");
        assert_eq!(standing(&signed, &roster, Some(&bundle), now()), Standing::Trusted);
        let shown = human(&roster, &Standing::Trusted, &Output::plain(crate::output::Format::Table));
        assert!(shown.contains(&roster.persons[0].keys[0].fingerprint()), "{shown}");
    }
}
