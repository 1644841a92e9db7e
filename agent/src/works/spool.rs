//! Reports that the controller has not acknowledged as durable: kept, numbered, sent within credit, sent again.

use std::collections::BTreeMap;

use fettle_proto::v1;
use fettle_runbooks::id::RunId;
use prost::Message as _;

use super::record::Record;

/// The reports owed to the controller.
#[derive(Debug, Default)]
pub(super) struct Spool {
    /// By number; those up to `durable` are on the disk.
    reports: BTreeMap<u64, Vec<u8>>,
    /// The last number given.
    last: u64,
    durable: u64,
    acked: u64,
    /// The last one sent over this connection.
    sent: u64,
    /// Absent: not connected.
    credits: Option<u32>,
}

impl Spool {
    /// Takes up a report from the journal, at start.
    pub(super) fn remember(&mut self, seq: u64, bytes: Vec<u8>) {
        self.last = self.last.max(seq);
        self.durable = self.last;
        if seq > self.acked {
            self.reports.insert(seq, bytes);
        }
    }

    /// Numbers a report; the record is to be journaled.
    pub(super) fn add(&mut self, mut report: v1::Report) -> Record {
        self.last += 1;
        report.seq = self.last;
        let bytes = report.encode_to_vec();
        self.reports.insert(self.last, bytes.clone());
        Record::Report { seq: self.last, bytes }
    }

    /// The last number given.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// How many reports are kept.
    pub(super) fn owed(&self) -> usize {
        self.reports.len()
    }

    /// Everything up to this one is on the disk.
    pub(super) fn durable(&mut self, upto: u64) {
        self.durable = self.durable.max(upto);
    }

    /// Everything up to this one is durable with the controller. True: that is news.
    pub(super) fn acked(&mut self, upto: u64) -> bool {
        let upto = upto.min(self.last);
        let news = upto > self.acked;
        if news {
            self.acked = upto;
            self.reports = self.reports.split_off(&(upto + 1));
        }
        news
    }

    /// Somebody else has spoken for this host: there are two of its disk, or it was put back to what it was. What was
    /// acknowledged up to this one may be theirs, so everything owed gets a number that nobody has used; the records are to
    /// be journaled in their order.
    pub(super) fn renumber(&mut self, upto: u64) -> Vec<Record> {
        self.last = self.last.max(upto);
        let owed = self.take_back();
        let acked = Record::Acked { upto: self.acked };
        std::iter::once(acked).chain(owed.into_iter().map(|report| self.add(report))).collect()
    }

    /// Takes back all that is owed, as if it were acknowledged.
    pub(super) fn take_back(&mut self) -> Vec<v1::Report> {
        self.acked = self.last;
        self.sent = self.sent.max(self.acked);
        let owed = std::mem::take(&mut self.reports);
        owed.values().filter_map(|bytes| v1::Report::decode(&bytes[..]).ok()).collect()
    }

    /// Everything up to this one was acknowledged.
    pub(super) fn upto(&self) -> u64 {
        self.acked
    }

    /// At start: this was acknowledged, whatever reports are still there.
    pub(super) fn remember_acked(&mut self, upto: u64) {
        self.last = self.last.max(upto);
        self.durable = self.last;
        self.acked(upto);
    }

    pub(super) fn connected(&mut self, credits: u32) {
        self.credits = Some(credits);
        self.sent = self.acked;
    }

    pub(super) fn disconnected(&mut self) {
        self.credits = None;
    }

    /// The next report to send, if one is durable and there is credit for it.
    pub(super) fn next(&mut self) -> Option<v1::Report> {
        loop {
            let credits = self.credits?;
            let under_way = self.sent.saturating_sub(self.acked);
            if under_way >= u64::from(credits) || self.sent >= self.durable {
                return None;
            }
            self.sent += 1;
            // A number without a report was lost with its append; the next one follows it.
            if let Some(report) =
                self.reports.get(&self.sent).and_then(|bytes| v1::Report::decode(&bytes[..]).ok())
            {
                return Some(report);
            }
        }
    }

    /// Whether a report of this segment is still owed.
    pub(super) fn owes(&self, run: RunId, segment: u32) -> bool {
        let run = run.to_string();
        self.reports
            .values()
            .filter_map(|bytes| v1::Report::decode(&bytes[..]).ok())
            .any(|report| report.segment == segment && report.run == run)
    }

    /// What a new journal file must carry.
    pub(super) fn live(&self) -> impl Iterator<Item = Record> + '_ {
        std::iter::once(Record::Acked { upto: self.acked })
            .chain(self.reports.iter().map(|(seq, bytes)| Record::Report { seq: *seq, bytes: bytes.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(spool: &mut Spool) -> Vec<u64> {
        std::iter::from_fn(|| spool.next()).map(|report| report.seq).collect()
    }

    #[test]
    fn a_report_leaves_when_it_is_durable_and_there_is_credit() {
        let mut spool = Spool::default();
        for _ in 0..3 {
            let _ = spool.add(v1::Report::default());
        }
        assert_eq!(sent(&mut spool), [0u64; 0], "not connected");
        spool.connected(2);
        assert_eq!(sent(&mut spool), [0u64; 0], "not durable");
        spool.durable(3);
        assert_eq!(sent(&mut spool), [1, 2], "no credit for the third");
        assert!(spool.acked(1));
        assert_eq!(sent(&mut spool), [3]);
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_over_the_next_connection() {
        let mut spool = Spool::default();
        for _ in 0..3 {
            let _ = spool.add(v1::Report::default());
        }
        spool.durable(3);
        spool.connected(10);
        assert_eq!(sent(&mut spool), [1, 2, 3]);
        spool.disconnected();
        spool.acked(1);
        spool.connected(10);
        assert_eq!(sent(&mut spool), [2, 3]);
    }

    #[test]
    fn what_another_with_the_same_disk_has_said_takes_no_report_away() {
        let mut spool = Spool::default();
        for segment in 1..=3 {
            let _ = spool.add(v1::Report { segment, ..v1::Report::default() });
        }
        spool.durable(3);
        spool.acked(1);
        // The other one is at 7 already.
        let records = spool.renumber(7);
        spool.durable(spool.last());
        spool.connected(10);
        let sent: Vec<_> = std::iter::from_fn(|| spool.next()).map(|it| (it.seq, it.segment)).collect();
        assert_eq!(sent, [(8, 2), (9, 3)]);
        let mut again = Spool::default();
        for record in records {
            if let Record::Acked { upto } = record {
                again.remember_acked(upto);
            } else if let Record::Report { seq, bytes } = record {
                again.remember(seq, bytes);
            } else {
                panic!("{record:?}");
            }
        }
        assert_eq!((again.owed(), again.last()), (2, 9));
    }

    #[test]
    fn numbers_go_on_after_a_restart_even_if_everything_was_acknowledged() {
        let mut spool = Spool::default();
        for _ in 0..3 {
            let _ = spool.add(v1::Report::default());
        }
        spool.durable(3);
        spool.acked(3);
        let mut again = Spool::default();
        for record in spool.live() {
            let Record::Acked { upto } = record else { panic!("{record:?}") };
            again.remember_acked(upto);
        }
        assert!(matches!(again.add(v1::Report::default()), Record::Report { seq: 4, .. }));
    }
}
