//! The first word of an agent, counted while it is decoded: two bytes on the wire are a paused run or a text of dozens of bytes in
//! memory, and whoever has a good certificate says hello as often as it likes.

use std::collections::HashMap;

use bytes::{Buf, BufMut};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, hash_map, message, skip_field, string, uint32, uint64};

use crate::v1::PausedRun;

/// Labels that a host may have, and things that it may say it cannot do.
pub const MOST_TEXTS: usize = 64;

/// Runs that may be paused on a host; each of them a person has paused.
pub const MOST_PAUSED: usize = 4 * 1024;

/// What an agent says first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hello {
    /// The protocol version the agent speaks; the controller refuses one it does not know.
    pub protocol: u32,
    /// The agent's software version, for people.
    pub version: String,
    /// The highest epoch this agent has ever been welcomed with; 0 at first.
    pub epoch_seen: u64,
    /// The kernel's boot id; a grant does not survive a reboot.
    pub boot_id: String,
    /// Names the agent's journal. Another name means another disk: sequence numbers start anew.
    pub journal: String,
    /// The version of the roster this agent trusts; 0 for none.
    pub roster_version: u64,
    /// What this host cannot do, in words for people; empty is best.
    pub missing: Vec<String>,
    /// The host's labels, from its own configuration.
    pub labels: HashMap<String, String>,
    /// Runs that are paused on this host.
    pub paused: Vec<PausedRun>,
}

/// Its fields; 6 was one.
const PROTOCOL: u32 = 1;
const VERSION: u32 = 2;
const EPOCH_SEEN: u32 = 3;
const BOOT_ID: u32 = 4;
const JOURNAL: u32 = 5;
const ROSTER_VERSION: u32 = 7;
const MISSING: u32 = 8;
const LABELS: u32 = 9;
const PAUSED: u32 = 10;

impl prost::Message for Hello {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if self.protocol != 0 {
            uint32::encode(PROTOCOL, &self.protocol, buf);
        }
        for (field, text) in self.texts() {
            string::encode(field, text, buf);
        }
        for (field, number) in self.numbers() {
            uint64::encode(field, &number, buf);
        }
        string::encode_repeated(MISSING, &self.missing, buf);
        let (of_name, of_text) = (string::encoded_len, string::encoded_len);
        hash_map::encode(string::encode, of_name, string::encode, of_text, LABELS, &self.labels, buf);
        message::encode_repeated(PAUSED, &self.paused, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            PROTOCOL => uint32::merge(wire_type, &mut self.protocol, buf, context),
            VERSION => string::merge(wire_type, &mut self.version, buf, context),
            EPOCH_SEEN => uint64::merge(wire_type, &mut self.epoch_seen, buf, context),
            BOOT_ID => string::merge(wire_type, &mut self.boot_id, buf, context),
            JOURNAL => string::merge(wire_type, &mut self.journal, buf, context),
            ROSTER_VERSION => uint64::merge(wire_type, &mut self.roster_version, buf, context),
            MISSING if self.missing.len() >= MOST_TEXTS => Err(too_much()),
            MISSING => string::merge_repeated(wire_type, &mut self.missing, buf, context),
            LABELS if self.labels.len() >= MOST_TEXTS => Err(too_much()),
            LABELS => hash_map::merge(string::merge, string::merge, &mut self.labels, buf, context),
            PAUSED if self.paused.len() >= MOST_PAUSED => Err(too_much()),
            PAUSED => message::merge_repeated(wire_type, &mut self.paused, buf, context),
            _ => skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let protocol = if self.protocol == 0 { 0 } else { uint32::encoded_len(PROTOCOL, &self.protocol) };
        let texts: usize = self.texts().map(|(field, text)| string::encoded_len(field, text)).sum();
        let numbers: usize = self.numbers().map(|(field, number)| uint64::encoded_len(field, &number)).sum();
        protocol
            + texts
            + numbers
            + string::encoded_len_repeated(MISSING, &self.missing)
            + hash_map::encoded_len(string::encoded_len, string::encoded_len, LABELS, &self.labels)
            + message::encoded_len_repeated(PAUSED, &self.paused)
    }

    fn clear(&mut self) {
        *self = Hello::default();
    }
}

impl Hello {
    fn texts(&self) -> impl Iterator<Item = (u32, &String)> {
        let all = [(VERSION, &self.version), (BOOT_ID, &self.boot_id), (JOURNAL, &self.journal)];
        all.into_iter().filter(|(_, text)| !text.is_empty())
    }

    fn numbers(&self) -> impl Iterator<Item = (u32, u64)> {
        let all = [(EPOCH_SEEN, self.epoch_seen), (ROSTER_VERSION, self.roster_version)];
        all.into_iter().filter(|(_, number)| *number != 0)
    }
}

#[expect(deprecated, reason = "there is no other way to say why")]
fn too_much() -> DecodeError {
    DecodeError::new("a hello that says more than an agent has to say")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn a_hello_travels_as_the_proto_file_says() {
        let hello = Hello {
            protocol: 1,
            version: "v".to_owned(),
            epoch_seen: 3,
            boot_id: "b".to_owned(),
            journal: "j".to_owned(),
            roster_version: 7,
            missing: vec!["m".to_owned()],
            labels: [("k".to_owned(), "l".to_owned())].into(),
            paused: vec![PausedRun { run: "r".to_owned(), count: 2 }],
        };
        let bytes = hello.encode_to_vec();
        assert_eq!(bytes.len(), hello.encoded_len());
        let fields: &[&[u8]] = &[
            &[0x08, 1],
            b"\x12\x01v",
            b"\x22\x01b",
            b"\x2a\x01j",
            &[0x18, 3],
            &[0x38, 7],
            b"\x42\x01m",
            b"\x4a\x06\x0a\x01k\x12\x01l",
            b"\x52\x05\x0a\x01r\x10\x02",
        ];
        assert_eq!(bytes, fields.concat());
        assert_eq!(Hello::decode(bytes.as_slice()), Ok(hello.clone()));
        // An agent of before names its open segments as well.
        let before = [bytes, vec![0x32, 2, 0x10, 1]].concat();
        assert_eq!(Hello::decode(before.as_slice()), Ok(hello));
        assert_eq!(Hello::default().encode_to_vec(), [0; 0]);
    }

    #[test]
    fn a_hello_of_too_much_is_refused_before_it_takes_up_memory() {
        for (entry, most) in [([0x42, 0], MOST_TEXTS), ([0x52, 0], MOST_PAUSED)] {
            assert!(Hello::decode(entry.repeat(most).as_slice()).is_ok(), "as many as may be");
            let refused = Hello::decode(entry.repeat(2 * 1024 * 1024).as_slice()).expect_err("too many");
            assert!(refused.to_string().contains("more than an agent"), "{refused}");
        }
        let label =
            |number: u32| Hello { labels: [(number.to_string(), String::new())].into(), ..Hello::default() };
        let labels: Vec<u8> = (0..1000).flat_map(|number| label(number).encode_to_vec()).collect();
        assert!(Hello::decode(labels.as_slice()).is_err());
    }
}
