//! The bytes of a body into a tree, with a word for what they are where they are no JSON.
//!
//! An object that has a member twice is refused: one reader would take the first and another the last, and a body could say
//! `resolved` to the one and `firing` to the other.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Refused, excerpt};

const FIX: &str = "post the webhook body of Alertmanager, version 4, as JSON";

/// The parser bounds the depth (128) and the caller the size.
pub(super) fn parse(body: &[u8]) -> Result<Value, Refused> {
    // Some libraries write a byte order mark; it says nothing more than that this is UTF-8.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if let Some(kind) = disguise(body) {
        return Err(Refused::new(format!("the body is {kind}"), "post it as UTF-8 text, not compressed"));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        Refused::new(format!("the body is not UTF-8: the byte at {} is wrong", error.valid_up_to()), FIX)
    })?;
    if text.trim().is_empty() {
        return Err(Refused::new("the body is empty", FIX));
    }
    serde_json::from_str::<Once>(text).map(|once| once.0).map_err(|error| {
        let seems = match text.trim_start().bytes().next() {
            Some(b'<') => "; it looks like XML or HTML",
            Some(b'{' | b'[' | b'"') => "",
            Some(_) if text.contains('=') && !text.contains('\n') => "; it looks like a form",
            Some(_) | None => "",
        };
        Refused::new(format!("the body is not JSON: {error}{seems}"), FIX)
    })
}

/// What bytes that are no UTF-8 text give away of themselves.
fn disguise(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x1f, 0x8b, ..] => Some("compressed (gzip)"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("compressed (zstd)"),
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Some("compressed (zlib)"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{' | b'[', 0, ..] | [0, b'{' | b'[', ..] => {
            Some("UTF-16, not UTF-8")
        }
        _ => None,
    }
}

/// A tree no object of which has a member twice.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Once)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Once(item)) = from.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            if members.contains_key(&name) {
                let message = format!("the member `{}` is there twice", excerpt(&name));
                return Err(de::Error::custom(message));
            }
            let Once(value) = from.next_value()?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}
