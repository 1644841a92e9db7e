//! Who is who: persons, their keys, groups and scopes, and the rules of approval.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use fettle_runbooks::id::Digest;
use fettle_runbooks::runbook::Risk;
use jiff::Timestamp;

use super::envelope::{Namespace, Signed, signer, verify};
use super::json::{Malformed, Members, Writer};
use super::keys::PublicKey;
use super::trust::Trust;
use super::{Tag, digest, words};
use crate::refusal::{Code, Refusal};

/// Format `roster/1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// Counts up; hosts never go back.
    pub version: u64,
    /// From then on it lets nobody do anything.
    pub expires: Timestamp,
    /// Everyone it knows. No two share a name or a key.
    pub persons: Vec<Person>,
    /// Approval beyond the floor.
    pub rules: Vec<Rule>,
    /// How many reviewers a runbook's certificate needs; at least 1.
    pub reviewers_needed: u32,
}

/// One person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Unique.
    pub name: String,
    /// Any of them is this person. Keys that are not allowed may stand here; nothing they sign counts.
    pub keys: Vec<PublicKey>,
    /// The groups that `from:` names.
    pub groups: BTreeSet<String>,
    /// What they may do.
    pub scopes: BTreeSet<Scope>,
}

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Start runs.
    Start,
    /// Decide gates.
    Approve,
    /// Certify runbooks.
    Review,
    /// Tokens, agents, cancelling: the controller itself.
    Operate,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 4] = [Scope::Start, Scope::Approve, Scope::Review, Scope::Operate];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Start => "start",
            Scope::Approve => "approve",
            Scope::Review => "review",
            Scope::Operate => "operate",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope: use `start`, `approve`, `review` or `operate`")]
pub struct NotAScope(String);

impl FromStr for Scope {
    type Err = NotAScope;

    fn from_str(word: &str) -> Result<Scope, NotAScope> {
        Scope::ALL
            .into_iter()
            .find(|scope| scope.as_str() == word)
            .ok_or_else(|| NotAScope(word.chars().take(40).collect()))
    }
}

/// Steps of this risk and above need so many persons, of these groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// From which risk on.
    pub risk: Risk,
    /// How many persons.
    pub need: u32,
    /// Of which groups; empty: anyone who may approve.
    pub from: BTreeSet<String>,
}

impl Roster {
    const FORMAT: &'static str = "roster/1";

    /// Its bytes, to be signed by a root key.
    pub fn encode(&self) -> Vec<u8> {
        let persons = self.persons.iter().map(|person| {
            Writer::object()
                .text("name", &person.name)
                .texts("keys", person.keys.iter().map(PublicKey::line))
                .texts("groups", &person.groups)
                .texts("scopes", person.scopes.iter().map(|scope| scope.as_str()))
        });
        let rules = self.rules.iter().map(|rule| {
            Writer::object()
                .text("risk", words::risk_word(rule.risk))
                .text("need", rule.need)
                .texts("from", &rule.from)
        });
        Writer::format(Self::FORMAT)
            .text("version", self.version)
            .text("expires", self.expires)
            .objects("persons", persons)
            .objects("rules", rules)
            .text("reviewers_needed", self.reviewers_needed)
            .end()
    }

    /// What the bytes say. Whether anyone signed them is another question: [`Roster::trusted`].
    pub fn decode(bytes: &[u8]) -> Result<Roster, Malformed> {
        let mut members = Members::open(bytes, Self::FORMAT)?;
        let roster = Roster {
            version: members.number("version")?,
            expires: words::time(&mut members, "expires")?,
            persons: members.list("persons")?.into_iter().map(person).collect::<Result<_, _>>()?,
            rules: members.list("rules")?.into_iter().map(rule).collect::<Result<_, _>>()?,
            reviewers_needed: words::count(members.number("reviewers_needed")?, "reviewers_needed")?,
        };
        members.end()?;
        roster.consistent()?;
        Ok(roster)
    }

    /// One name, one person; one key, one person: whoever counts signatures counts persons.
    pub fn consistent(&self) -> Result<(), Malformed> {
        let mut names = BTreeSet::new();
        let mut keys: BTreeMap<String, &str> = BTreeMap::new();
        for person in &self.persons {
            if !words::is_name(&person.name) {
                return Err(Malformed::value("name", format!("`{}` is no name", person.name.escape_debug())));
            }
            // Names that differ in case alone would be one person to the eye and two to the quorum.
            if !names.insert(person.name.to_ascii_lowercase()) {
                return Err(Malformed::value("persons", format!("`{}` stands twice", person.name)));
            }
            for key in &person.keys {
                if let Some(other) = keys.insert(key.line(), &person.name) {
                    return Err(Malformed::value(
                        "keys",
                        format!(
                            "the key {} is given to `{other}` and to `{}`",
                            key.fingerprint(),
                            person.name
                        ),
                    ));
                }
            }
            if let Some(group) = person.groups.iter().find(|group| !words::is_name(group)) {
                return Err(Malformed::value("groups", format!("`{}` is no name", group.escape_debug())));
            }
        }
        if self.version == 0 {
            return Err(Malformed::value("version", "versions begin with 1"));
        }
        if self.reviewers_needed == 0 {
            return Err(Malformed::value("reviewers_needed", "at least one reviewer is needed"));
        }
        Ok(())
    }

    /// The roster of signed bytes, if a root key of this trust signed them. It may have expired: see
    /// [`Roster::in_force`].
    pub fn trusted(signed: &Signed, trust: &Trust) -> Result<Roster, Refusal> {
        verify(signed, Namespace::Roster, &trust.roots).map_err(|refusal| {
            if refusal.code == Code::KeyUnknown {
                return Refusal::new(Code::RosterUntrusted, "the roster is not signed by a root key");
            }
            refusal
        })?;
        Ok(Roster::decode(&signed.bytes)?)
    }

    /// Whether it may take the place of the roster of this version (0: none): hosts never go back.
    pub fn may_follow(&self, version: u64) -> Result<(), Refusal> {
        if self.version < version {
            return Err(Refusal::new(
                Code::RosterOld,
                format!("roster version {} is older than {version}, which is known already", self.version),
            ));
        }
        Ok(())
    }

    /// Whether it still lets anyone do anything.
    pub fn in_force(&self, now: Timestamp) -> Result<(), Refusal> {
        if now >= self.expires {
            return Err(Refusal::new(
                Code::RosterExpired,
                format!("roster version {} expired at {}", self.version, self.expires),
            ));
        }
        Ok(())
    }

    /// The digest of a roster's bytes.
    pub fn digest(bytes: &[u8]) -> Digest {
        digest(Tag::Roster, bytes)
    }

    /// A person by name.
    pub fn person(&self, name: &str) -> Option<&Person> {
        self.persons.iter().find(|person| person.name == name)
    }

    /// Whose key this is.
    pub fn owner(&self, key: &PublicKey) -> Option<&Person> {
        self.persons.iter().find(|person| person.keys.contains(key))
    }

    /// Who signed: the signature is whole and accepted, the key belongs to a person who has the scope.
    pub fn signer(
        &self,
        signed: &Signed,
        namespace: Namespace,
        scope: Option<Scope>,
    ) -> Result<&Person, Refusal> {
        let key = signer(signed, namespace)?;
        let person = self.owner(&key).ok_or_else(|| {
            Refusal::new(
                Code::KeyUnknown,
                format!("the key {} belongs to nobody in roster version {}", key.fingerprint(), self.version),
            )
        })?;
        match scope {
            Some(scope) if !person.scopes.contains(&scope) => Err(Refusal::new(
                Code::ScopeMissing,
                format!(
                    "`{}` does not have the scope `{scope}` in roster version {}",
                    person.name, self.version
                ),
            )),
            Some(_) | None => Ok(person),
        }
    }
}

/// Refuses bytes that name another person than the one who signed them.
pub(crate) fn named(person: &Person, named: &str) -> Result<(), Refusal> {
    if person.name == named {
        return Ok(());
    }
    Err(Refusal::new(
        Code::PersonMismatch,
        format!("it names `{}` and is signed by `{}`", named.escape_debug(), person.name),
    ))
}

fn person(value: super::json::Json) -> Result<Person, Malformed> {
    let mut members = Members::of(value, "persons")?;
    let person = Person {
        name: words::name(members.text("name")?, "name")?,
        keys: members
            .texts("keys")?
            .iter()
            .map(|line| PublicKey::parse(line).map_err(|error| Malformed::value("keys", error)))
            .collect::<Result<_, _>>()?,
        groups: members
            .texts("groups")?
            .into_iter()
            .map(|group| words::name(group, "groups"))
            .collect::<Result<_, _>>()?,
        scopes: members
            .texts("scopes")?
            .iter()
            .map(|scope| scope.parse().map_err(|error| Malformed::value("scopes", error)))
            .collect::<Result<_, _>>()?,
    };
    members.end()?;
    Ok(person)
}

fn rule(value: super::json::Json) -> Result<Rule, Malformed> {
    let mut members = Members::of(value, "rules")?;
    let rule = Rule {
        risk: words::risk(&mut members, "risk")?,
        need: words::count(members.number("need")?, "need")?,
        from: members
            .texts("from")?
            .into_iter()
            .map(|group| words::name(group, "from"))
            .collect::<Result<_, _>>()?,
    };
    members.end()?;
    Ok(rule)
}
