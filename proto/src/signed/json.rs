//! The strict subset of JSON that signed objects are written in.
//!
//! Objects, arrays and strings; every scalar is a string, so nobody's number type can change a value. No white space
//! between tokens, no member twice, none missing, none unknown; the first member names the format. Two readers
//! therefore cannot see two things in one text.

use std::fmt::Write as _;

/// The largest object anyone will read, in bytes.
pub const LIMIT: usize = 4 * 1024 * 1024;

/// How deep arrays and objects may nest.
const DEPTH: usize = 16;

/// Bytes that are not the format they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Larger than [`LIMIT`].
    #[error("{0} bytes are more than the {LIMIT} that are read")]
    TooLarge(usize),
    /// Not the subset of JSON.
    #[error("byte {at}: {what}")]
    Syntax {
        /// Offset.
        at: usize,
        /// What was wrong there.
        what: &'static str,
    },
    /// Another format, or none.
    #[error("expected format `{expected}`, found `{found}`")]
    Format {
        /// Wanted.
        expected: &'static str,
        /// Found, shortened.
        found: String,
    },
    /// A member that must be there is not.
    #[error("member `{0}` is missing")]
    Missing(&'static str),
    /// A member the format does not have.
    #[error("member `{0}` is unknown")]
    Unknown(String),
    /// A member's value is not what it must be.
    #[error("member `{member}`: {why}")]
    Value {
        /// Which.
        member: String,
        /// For people.
        why: String,
    },
}

impl Malformed {
    /// A member with a wrong value.
    pub fn value(member: &str, why: impl std::fmt::Display) -> Malformed {
        Malformed::Value { member: member.to_owned(), why: why.to_string() }
    }
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// Members in the order they stand; no name twice.
    Object(Vec<(String, Json)>),
}

/// Parses one value, which must be all there is.
pub fn parse(bytes: &[u8]) -> Result<Json, Malformed> {
    if bytes.len() > LIMIT {
        return Err(Malformed::TooLarge(bytes.len()));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Malformed::Syntax { at: error.valid_up_to(), what: "not UTF-8" })?;
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    if parser.at < text.len() { Err(parser.bad("something follows the object")) } else { Ok(value) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn bad(&self, what: &'static str) -> Malformed {
        Malformed::Syntax { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Json, Malformed> {
        if depth > DEPTH {
            return Err(self.bad("nested too deeply"));
        }
        match self.peek() {
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(b'[') => self.list(depth),
            Some(b'{') => self.object(depth),
            Some(_) => Err(self.bad("expected a string, an array or an object without white space")),
            None => Err(self.bad("ends too early")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Json, Malformed> {
        self.at += 1;
        let mut items = Vec::new();
        if self.eat(b']') {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.eat(b']') {
                return Ok(Json::List(items));
            }
            if !self.eat(b',') {
                return Err(self.bad("expected `,` or `]`"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, Malformed> {
        self.at += 1;
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        if self.eat(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.bad("expected a member's name"));
            }
            let name = self.string()?;
            if !names.insert(name.clone()) {
                return Err(self.bad("this member stands twice"));
            }
            if !self.eat(b':') {
                return Err(self.bad("expected `:`"));
            }
            members.push((name, self.value(depth + 1)?));
            if self.eat(b'}') {
                return Ok(Json::Object(members));
            }
            if !self.eat(b',') {
                return Err(self.bad("expected `,` or `}`"));
            }
        }
    }

    fn string(&mut self) -> Result<String, Malformed> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest
                .bytes()
                .position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)
                .ok_or(Malformed::Syntax { at: self.text.len(), what: "ends within a string" })?;
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(_) | None => return Err(self.bad("a control character stands in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        let escape = self.peek().ok_or_else(|| self.bad("ends within a string"))?;
        let plain = match escape {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.bad("unknown escape")),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode(&mut self) -> Result<char, Malformed> {
        let first = self.hex4()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !(self.eat(b'\\') && self.eat(b'u')) {
                    return Err(self.bad("half a surrogate pair"));
                }
                let second = self.hex4()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(self.bad("half a surrogate pair"));
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            other => other,
        };
        char::from_u32(code).ok_or_else(|| self.bad("half a surrogate pair"))
    }

    fn hex4(&mut self) -> Result<u32, Malformed> {
        let digits = self
            .text
            .as_bytes()
            .get(self.at..self.at + 4)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .ok_or_else(|| self.bad("expected four hex digits"))?;
        let code = digits.iter().fold(0, |sum, digit| sum << 4 | (*digit as char).to_digit(16).unwrap_or(0));
        self.at += 4;
        Ok(code)
    }
}

/// The members of one object, taken one by one; whatever is left at the end is unknown.
pub struct Members {
    members: Vec<(String, Json)>,
}

impl Members {
    /// Opens a whole signed object and checks that its first member names the format.
    pub fn open(bytes: &[u8], format: &'static str) -> Result<Members, Malformed> {
        let wrong =
            |found: &str| Malformed::Format { expected: format, found: found.chars().take(40).collect() };
        match parse(bytes)? {
            Json::Object(mut members) => match members.first() {
                Some((name, Json::Text(found))) if name == "fettle" && found == format => {
                    members.remove(0);
                    Ok(Members { members })
                }
                Some((name, Json::Text(found))) if name == "fettle" => Err(wrong(found)),
                Some(_) | None => Err(wrong("an object that does not begin with `fettle`")),
            },
            Json::Text(_) | Json::List(_) => Err(wrong("no object")),
        }
    }

    /// An object within another.
    pub fn of(value: Json, member: &str) -> Result<Members, Malformed> {
        match value {
            Json::Object(members) => Ok(Members { members }),
            Json::Text(_) | Json::List(_) => Err(Malformed::value(member, "expected an object")),
        }
    }

    /// Takes a member as it is.
    pub fn take(&mut self, name: &'static str) -> Result<Json, Malformed> {
        let at =
            self.members.iter().position(|(member, _)| member == name).ok_or(Malformed::Missing(name))?;
        Ok(self.members.remove(at).1)
    }

    /// Takes a member that not every such object has.
    pub fn optional(&mut self, name: &'static str) -> Option<Json> {
        let at = self.members.iter().position(|(member, _)| member == name)?;
        Some(self.members.remove(at).1)
    }

    /// Takes a text.
    pub fn text(&mut self, name: &'static str) -> Result<String, Malformed> {
        text(self.take(name)?, name)
    }

    /// Takes a text and reads it as what it must be: a digest, an id, a number.
    pub fn parsed<T>(&mut self, name: &'static str) -> Result<T, Malformed>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        self.text(name)?.parse().map_err(|error| Malformed::value(name, error))
    }

    /// Takes a whole number in its one spelling: decimal digits, no sign, no leading zero.
    pub fn number(&mut self, name: &'static str) -> Result<u64, Malformed> {
        number(&self.text(name)?).ok_or_else(|| Malformed::value(name, "expected a whole number"))
    }

    /// Takes a list.
    pub fn list(&mut self, name: &'static str) -> Result<Vec<Json>, Malformed> {
        match self.take(name)? {
            Json::List(items) => Ok(items),
            Json::Text(_) | Json::Object(_) => Err(Malformed::value(name, "expected a list")),
        }
    }

    /// Takes a list of texts.
    pub fn texts(&mut self, name: &'static str) -> Result<Vec<String>, Malformed> {
        self.list(name)?.into_iter().map(|item| text(item, name)).collect()
    }

    /// Takes an object whose members are texts of any name.
    pub fn map(
        &mut self,
        name: &'static str,
    ) -> Result<std::collections::BTreeMap<String, String>, Malformed> {
        match self.take(name)? {
            Json::Object(members) => {
                members.into_iter().map(|(key, value)| Ok((key, text(value, name)?))).collect()
            }
            Json::Text(_) | Json::List(_) => Err(Malformed::value(name, "expected an object")),
        }
    }

    /// Ends the reading: nothing may be left.
    pub fn end(self) -> Result<(), Malformed> {
        match self.members.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(Malformed::Unknown(name.chars().take(80).collect())),
        }
    }
}

fn text(value: Json, member: &str) -> Result<String, Malformed> {
    match value {
        Json::Text(text) => Ok(text),
        Json::List(_) | Json::Object(_) => Err(Malformed::value(member, "expected a string")),
    }
}

fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Writes an object, member by member.
#[derive(Debug)]
pub struct Writer {
    out: String,
}

impl Writer {
    /// A whole signed object of a format.
    pub fn format(format: &'static str) -> Writer {
        let mut writer = Writer { out: "{".to_owned() };
        writer.push("fettle", format);
        writer
    }

    /// An object within another.
    pub fn object() -> Writer {
        Writer { out: "{".to_owned() }
    }

    fn name(&mut self, name: &str) {
        if self.out.len() > 1 {
            self.out.push(',');
        }
        quote(&mut self.out, name);
        self.out.push(':');
    }

    fn push(&mut self, name: &str, value: &str) {
        self.name(name);
        quote(&mut self.out, value);
    }

    /// A text, or anything that prints as one.
    pub fn text(mut self, name: &str, value: impl std::fmt::Display) -> Writer {
        self.push(name, &value.to_string());
        self
    }

    /// A list of texts.
    pub fn texts<I: AsRef<str>>(self, name: &str, items: impl IntoIterator<Item = I>) -> Writer {
        let quoted = items.into_iter().map(|item| {
            let mut out = String::new();
            quote(&mut out, item.as_ref());
            out
        });
        self.raw_list(name, quoted)
    }

    /// A list of objects.
    pub fn objects(self, name: &str, items: impl IntoIterator<Item = Writer>) -> Writer {
        self.raw_list(name, items.into_iter().map(Writer::close))
    }

    fn raw_list(mut self, name: &str, items: impl Iterator<Item = String>) -> Writer {
        self.name(name);
        self.out.push('[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.out.push_str(&item);
        }
        self.out.push(']');
        self
    }

    /// An object.
    pub fn nested(mut self, name: &str, value: Writer) -> Writer {
        self.name(name);
        self.out.push_str(&value.close());
        self
    }

    /// An object whose members are texts.
    pub fn map<'a>(self, name: &str, entries: impl IntoIterator<Item = (&'a String, &'a String)>) -> Writer {
        let mut inner = Writer::object();
        for (key, value) in entries {
            inner.push(key, value);
        }
        self.nested(name, inner)
    }

    fn close(mut self) -> String {
        self.out.push('}');
        self.out
    }

    /// The bytes.
    pub fn end(self) -> Vec<u8> {
        self.close().into_bytes()
    }
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
