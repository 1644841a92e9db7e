//! Many reports in one message, counted while they are decoded: two bytes on the wire are a report of hundreds of bytes in
//! memory, and a message of a few MiB would otherwise be more of them than a process can hold. The reports inside a report
//! ([`ToldAgain`]) are counted too.

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::encoding::{
    DecodeContext, WireType, bool as boolean, bytes as blob, decode_key, message, skip_field, uint32,
};

use crate::v1::Report;
use crate::v1::report::What;

/// Reports that one message may have; agents send far fewer at a time.
pub const MOST_REPORTS: usize = 1024;

/// Reports that may be inside all the reports of one message: a run of two thousand attempts has half as many.
pub const MOST_TOLD: usize = 8 * 1024;

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
            REPORTS => {
                message::merge_repeated(wire_type, &mut self.reports, buf, context)?;
                let told = self.reports.iter().filter_map(told).map(|told| told.reports.len()).sum::<usize>();
                if told > MOST_TOLD { Err(too_many()) } else { Ok(()) }
            }
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

/// Everything the host still knows of one run. It says so of each of its runs when the controller acknowledges less than it did
/// before: then it was restored from a backup, and may not know the run at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToldAgain {
    /// The content of the newest order of the run that the host accepted, verbatim.
    pub order: Bytes,
    /// What happened, in order, each with `seq` 0. Of steps only those that may have changed something; and at the end, what else
    /// steps have said that no controller has acknowledged.
    pub reports: Vec<Report>,
    /// The segments that only looked whether the symptom is gone, so that their ends are not taken for that of a remediation.
    pub looks: Vec<u32>,
    /// How its last segment ended, or that it was cancelled, no controller has acknowledged: perhaps nobody was told.
    pub unheard: bool,
}

/// Where a report has it.
const TOLD_AGAIN: u32 = 13;

/// Its fields.
const ORDER: u32 = 1;
const TOLD: u32 = 2;
const LOOKS: u32 = 3;
const UNHEARD: u32 = 4;

impl prost::Message for ToldAgain {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if !self.order.is_empty() {
            blob::encode(ORDER, &self.order, buf);
        }
        message::encode_repeated(TOLD, &self.reports, buf);
        uint32::encode_packed(LOOKS, &self.looks, buf);
        if self.unheard {
            boolean::encode(UNHEARD, &self.unheard, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            ORDER => blob::merge(wire_type, &mut self.order, buf, context),
            TOLD if self.reports.len() >= MOST_TOLD => Err(too_many()),
            TOLD => {
                let mut report = Bytes::new();
                blob::merge(wire_type, &mut report, buf, context.clone())?;
                if tells_again(report.clone(), &context)? {
                    return Err(nested());
                }
                self.reports.push(Report::decode(report)?);
                Ok(())
            }
            LOOKS => {
                uint32::merge_repeated(wire_type, &mut self.looks, buf, context)?;
                if self.looks.len() > MOST_TOLD { Err(too_many_looks()) } else { Ok(()) }
            }
            UNHEARD => boolean::merge(wire_type, &mut self.unheard, buf, context),
            _ => skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let order = if self.order.is_empty() { 0 } else { blob::encoded_len(ORDER, &self.order) };
        order
            + message::encoded_len_repeated(TOLD, &self.reports)
            + uint32::encoded_len_packed(LOOKS, &self.looks)
            + if self.unheard { boolean::encoded_len(UNHEARD, &self.unheard) } else { 0 }
    }

    fn clear(&mut self) {
        *self = ToldAgain::default();
    }
}

/// Whether a report has a run that is told again, read from its bytes: what is inside is not decoded, for it could hold as many
/// reports as this one may, and so on for dozens of levels.
fn tells_again(mut report: Bytes, context: &DecodeContext) -> Result<bool, DecodeError> {
    while report.has_remaining() {
        let (tag, wire_type) = decode_key(&mut report)?;
        if tag == TOLD_AGAIN {
            return Ok(true);
        }
        skip_field(wire_type, tag, &mut report, context.clone())?;
    }
    Ok(false)
}

fn told(report: &Report) -> Option<&ToldAgain> {
    if let Some(What::ToldAgain(told)) = &report.what { Some(told) } else { None }
}

#[expect(deprecated, reason = "there is no other way to say why")]
fn nested() -> DecodeError {
    DecodeError::new("a run that is told again inside another")
}

#[expect(deprecated, reason = "there is no other way to say why")]
fn too_many() -> DecodeError {
    DecodeError::new("more reports than a message may have")
}

#[expect(deprecated, reason = "there is no other way to say why")]
fn too_many_looks() -> DecodeError {
    DecodeError::new("more segments than a run may have")
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

    fn again(reports: Vec<Report>) -> Report {
        let told = ToldAgain { order: Bytes::from_static(b"order"), reports, ..ToldAgain::default() };
        Report { what: Some(What::ToldAgain(told)), ..Report::default() }
    }

    #[test]
    fn a_run_travels_again_as_the_proto_file_says() {
        let report = again(vec![Report { segment: 7, ..Report::default() }]);
        let bytes = report.encode_to_vec();
        assert_eq!(bytes.len(), report.encoded_len());
        assert_eq!(bytes[..4], [0x6a, 11, 0x0a, 5], "field 13, in it field 1");
        assert_eq!(bytes[9..], [0x12, 2, 0x18, 7], "field 2, in it field 3");
        assert_eq!(Report::decode(bytes.as_slice()), Ok(report));
        let told = ToldAgain { looks: vec![3, 300], ..ToldAgain::default() };
        assert_eq!(told.encode_to_vec(), [0x1a, 3, 3, 0xac, 2], "field 3, packed");
        assert_eq!(ToldAgain::decode(told.encode_to_vec().as_slice()), Ok(told));
        let unheard = ToldAgain { unheard: true, ..ToldAgain::default() };
        assert_eq!((unheard.encode_to_vec(), unheard.encoded_len()), (vec![0x20, 1], 2), "field 4");
        assert_eq!(ToldAgain::decode([0x20, 1].as_slice()), Ok(unheard));
        let many = ToldAgain { looks: vec![1; MOST_TOLD + 1], ..ToldAgain::default() };
        let refused = ToldAgain::decode(many.encode_to_vec().as_slice()).expect_err("too many");
        assert!(refused.to_string().contains("more segments"), "{refused}");
        let empty = Report { what: Some(What::ToldAgain(ToldAgain::default())), ..Report::default() };
        assert_eq!(empty.encode_to_vec(), [0x6a, 0]);
    }

    #[test]
    fn too_many_reports_inside_reports_are_refused_as_well() {
        let most = again(vec![Report::default(); MOST_TOLD]);
        let decode = |reports: Vec<Report>| Reports::decode(Reports { reports }.encode_to_vec().as_slice());
        assert_eq!(decode(vec![most.clone()]).expect("as many as may be").reports.len(), 1);
        let more = decode(vec![again(vec![Report::default(); MOST_TOLD + 1])]).expect_err("too many in one");
        assert!(more.to_string().contains("more reports"), "{more}");
        let more = decode(vec![most, again(vec![Report::default()])]).expect_err("too many in two");
        assert!(more.to_string().contains("more reports"), "{more}");
        let deep = decode(vec![again(vec![again(Vec::new())])]).expect_err("one inside another");
        assert!(deep.to_string().contains("inside another"), "{deep}");
    }

    #[test]
    fn what_is_inside_a_run_inside_another_is_not_even_decoded() {
        // From the inside: a run that is told again and is not even a message, in a report, in a run, in a report, in a message.
        let (inner, outer) = ([0x6a, 1, 0xff], [0x6a, 5, 0x12, 3]);
        let bytes: Vec<u8> = [0x0a, 7].into_iter().chain(outer).chain(inner).collect();
        let refused = Reports::decode(bytes.as_slice()).expect_err("one inside another");
        assert!(refused.to_string().contains("inside another"), "{refused}");
    }
}
