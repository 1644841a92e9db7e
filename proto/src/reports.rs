//! Many reports in one message, counted while they are decoded: two bytes on the wire are a report of hundreds of bytes in
//! memory, and a message of a few MiB would otherwise be more of them than a process can hold.

use bytes::{Buf, BufMut};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, message, skip_field};

use crate::v1::Report;

/// Reports that one message may have; agents send far fewer at a time.
pub const MOST_REPORTS: usize = 1024;

/// In order of `seq`, without gaps. Everything here is already durable on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reports {
    /// The reports.
    pub reports: Vec<Report>,
}

/// Its one field.
const REPORTS: u32 = 1;

impl prost::Message for Reports {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        message::encode_repeated(REPORTS, &self.reports, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            REPORTS if self.reports.len() >= MOST_REPORTS => Err(too_many()),
            REPORTS => message::merge_repeated(wire_type, &mut self.reports, buf, context),
            _ => skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(REPORTS, &self.reports)
    }

    fn clear(&mut self) {
        self.reports.clear();
    }
}

#[expect(deprecated, reason = "there is no other way to say why")]
fn too_many() -> DecodeError {
    DecodeError::new("more reports than a message may have")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn reports_travel_as_the_proto_file_says() {
        let report = |seq| Report { seq, run: "run".to_owned(), ..Report::default() };
        let reports = Reports { reports: vec![report(1), report(2)] };
        let bytes = reports.encode_to_vec();
        assert_eq!(bytes.len(), reports.encoded_len());
        assert_eq!(bytes[..2], [0x0a, bytes[1]], "field 1, length-delimited");
        assert_eq!(Reports::decode(bytes.as_slice()), Ok(reports));
    }

    #[test]
    fn a_message_of_too_many_reports_is_refused_before_they_take_up_memory() {
        let bytes = |count: usize| [0x0a, 0x00].repeat(count);
        let decoded = Reports::decode(bytes(MOST_REPORTS).as_slice()).expect("as many as may be");
        assert_eq!(decoded.reports.len(), MOST_REPORTS);
        let refused = Reports::decode(bytes(2 * 1024 * 1024).as_slice()).expect_err("too many");
        assert!(refused.to_string().contains("more reports"), "{refused}");
    }
}
