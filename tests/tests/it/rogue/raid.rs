//! A run that the thief invents on one host, and what people would sign for it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use fettle_proto::grant::Grant;
use fettle_proto::signed::{
    Approval, Certificate, Decision, Leaf, Namespace, PrivateKey, Request, Signed, Start, Tag, Until, digest,
    plan, sign,
};
use fettle_proto::{merkle, v1};
use fettle_runbooks::id::{Digest, GateId, RunId};
use fettle_runbooks::runbook::Risk;
use fettle_tests::cluster::LIMIT;
use fettle_tests::eventually;
use fettle_tests::people::AUTHOR;
use jiff::{SignedDuration, Timestamp};
use prost::Message as _;
use uuid::Uuid;

use super::thief::Thief;

/// Diagnoses by facts alone; its one step of this risk adds a line to the marker.
pub(super) fn strike(risk: &str) -> String {
    with_reads(
        risk,
        "- id: facts\n    that: memory.total_bytes > 0",
        "- id: there\n    that: file(inputs.marker).exists\n    within: 2s",
    )
}

/// The same with other steps before and after.
pub(super) fn with_reads(risk: &str, diagnose: &str, verify: &str) -> String {
    format!(
        r#"fettle: 1
runbook: test/strike
title: Leave a marker
owner: tests
inputs:
  marker: {{ type: path }}
diagnose:
  {diagnose}
remediate:
  - id: strike
    risk: {risk}
    run: |
      echo struck >> "$MARKER"
    env: {{ MARKER: "${{{{ inputs.marker }}}}" }}
    repeat: never
    undo: none
verify:
  {verify}
"#
    )
}

/// A read step that is none: it leaves a line in the marker.
pub(super) const PRETENDER: &str =
    "- id: peek\n    run: |\n      echo read >> \"$MARKER\"\n    env: { MARKER: \"${{ inputs.marker }}\" }";

/// The path of the step that shows.
pub(super) const STRIKE: &str = "remediate/strike";

pub(super) struct Raid<'t> {
    thief: &'t Thief,
    pub(super) host: String,
    pub(super) run: RunId,
    pub(super) runbook: String,
    pub(super) certificates: Vec<Signed>,
    pub(super) inputs: BTreeMap<String, String>,
    pub(super) start: Option<Signed>,
    pub(super) requester: Option<String>,
    segment: Cell<u32>,
    marker: PathBuf,
}

pub(super) fn now() -> Timestamp {
    Timestamp::now()
}

pub(super) fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

/// A key that no roster has.
pub(super) fn stranger() -> PrivateKey {
    PrivateKey::from_seed([0x5a; 32], "stranger")
}

impl<'t> Raid<'t> {
    /// A run of a certified runbook, as if a trigger had started it.
    pub(super) fn of(thief: &'t Thief, host: &str, runbook: String) -> Raid<'t> {
        let certificates = vec![thief.cluster.people.certify("test/strike", runbook.as_bytes())];
        Raid { certificates, ..Raid::uncertified(thief, host, runbook) }
    }

    /// The same of a runbook that nobody has certified.
    pub(super) fn uncertified(thief: &'t Thief, host: &str, runbook: String) -> Raid<'t> {
        let run = RunId::new(Uuid::now_v7());
        let marker = thief.cluster.path(&format!("marker-{run}"));
        let inputs = BTreeMap::from([("marker".to_owned(), marker.display().to_string())]);
        Raid {
            thief,
            host: host.to_owned(),
            run,
            runbook,
            certificates: Vec::new(),
            inputs,
            start: None,
            requester: None,
            segment: Cell::new(0),
            marker,
        }
    }

    /// The same run on another host.
    pub(super) fn on(&self, host: &str) -> Raid<'t> {
        Raid {
            thief: self.thief,
            host: host.to_owned(),
            run: self.run,
            runbook: self.runbook.clone(),
            certificates: self.certificates.clone(),
            inputs: self.inputs.clone(),
            start: self.start.clone(),
            requester: self.requester.clone(),
            segment: Cell::new(0),
            marker: self.marker.clone(),
        }
    }

    // --- what people sign ---

    /// What a person would sign to start it.
    pub(super) fn wish(&self, person: &str) -> Start {
        Start {
            run: self.run,
            runbook: "test/strike".to_owned(),
            runbook_digest: digest(Tag::Runbook, self.runbook.as_bytes()),
            inputs: self.inputs.clone(),
            hosts: BTreeSet::from([self.host.parse().expect("a host")]),
            person: person.to_owned(),
            at: now(),
            until: Until::End,
            of: None,
        }
    }

    /// Signed by a person's key, whoever the wish names.
    pub(super) fn signed_wish(&self, start: &Start, by: &str) -> Signed {
        sign(self.thief.cluster.people.key(by), Namespace::Start, &start.encode()).expect("the key signs")
    }

    /// The run as a person started it.
    pub(super) fn started_by(mut self, person: &str) -> Raid<'t> {
        self.start = Some(self.signed_wish(&self.wish(person), person));
        self.requester = Some(person.to_owned());
        self
    }

    /// The run of another raid, as its order comes again.
    pub(super) fn again(thief: &'t Thief, host: &str, runbook: String, run: RunId) -> Raid<'t> {
        let marker = thief.cluster.path(&format!("marker-{run}"));
        let inputs = BTreeMap::from([("marker".to_owned(), marker.display().to_string())]);
        // Above the numbers that were used before.
        let segment = Cell::new(100);
        Raid { run, marker, inputs, segment, ..Raid::of(thief, host, runbook) }
    }

    /// Certified by these keys as the work of this author.
    pub(super) fn certificate(&self, author: &str, reviewer: &str) -> Signed {
        let certificate = Certificate {
            runbook: "test/strike".to_owned(),
            runbook_digest: digest(Tag::Runbook, self.runbook.as_bytes()),
            author: author.to_owned(),
            reviewer: reviewer.to_owned(),
            at: now(),
        };
        sign(self.thief.cluster.people.key(reviewer), Namespace::Runbook, &certificate.encode())
            .expect("the key signs")
    }

    /// The honest request for a plan.
    pub(super) fn request(&self, plan_bytes: &[u8]) -> Request {
        Request {
            run: self.run,
            gate: GateId::new(Uuid::now_v7()),
            runbook: "test/strike".to_owned(),
            runbook_digest: digest(Tag::Runbook, self.runbook.as_bytes()),
            start: self.start.as_ref().map(|signed| digest(Tag::Start, &signed.bytes)),
            requester: self.requester.clone(),
            factors: Vec::new(),
            decide_by: later(600),
            start_by: later(600),
            root: leaf_of(plan_bytes).hash(),
            leaves: 1,
            risk: Risk::Critical,
            again: None,
        }
    }

    /// Approvals of the request's bytes by these persons, and the way to the only leaf.
    pub(super) fn grant(&self, request: &Request, persons: &[&str]) -> Grant {
        let request = request.encode();
        let of = Request::digest(&request);
        let approvals =
            persons.iter().map(|person| self.signed_approval(&approval(of, person), person)).collect();
        Grant { request, approvals, leaf_index: 0, leaf_count: 1, merkle_path: Vec::new() }
    }

    /// Signed by a person's key, whoever the approval names.
    pub(super) fn signed_approval(&self, approval: &Approval, by: &str) -> Signed {
        sign(self.thief.cluster.people.key(by), Namespace::Approval, &approval.encode())
            .expect("the key signs")
    }

    // --- what the thief says ---

    /// An order of the run, under the next number.
    pub(super) fn order(&self, work: v1::order_content::Work) -> v1::OrderContent {
        self.segment.set(self.segment.get() + 1);
        v1::OrderContent {
            run: self.run.to_string(),
            host: self.host.clone(),
            segment: self.segment.get(),
            runbook: self.runbook.as_bytes().to_vec().into(),
            certificates: self.certificates.iter().cloned().map(Into::into).collect(),
            inputs: self.inputs.clone().into_iter().collect(),
            start: self.start.clone().map(Into::into),
            not_after_ms: later(600).as_millisecond(),
            work: Some(work),
        }
    }

    /// How the host refused a segment or ended it, however often.
    fn answers(&self, segment: u32) -> Vec<v1::report::What> {
        let mut reports = self.thief.reports(&self.host, &self.run.to_string(), segment);
        reports
            .retain(|what| matches!(what, v1::report::What::Refused(_) | v1::report::What::SegmentEnded(_)));
        reports
    }

    /// Sends an order and waits until the host has refused it or carried it out.
    #[track_caller]
    pub(super) fn answer(&self, content: &v1::OrderContent) -> v1::report::What {
        let bytes = content.encode_to_vec();
        self.answer_to(content.segment, bytes.clone(), digest(Tag::Order, &bytes))
    }

    /// The same of any bytes that say they are of this segment and have this digest.
    #[track_caller]
    pub(super) fn answer_to(&self, segment: u32, content: Vec<u8>, digest: Digest) -> v1::report::What {
        let before = self.answers(segment).len();
        let order = v1::Order { content: content.into(), digest: digest.0.to_vec().into() };
        self.thief.say(&self.host, v1::to_agent::What::Order(order));
        eventually(&format!("{} answers segment {segment} of {}", self.host, self.run), LIMIT, || {
            let answers = self.answers(segment);
            answers.get(before).cloned().ok_or_else(|| format!("{answers:?}\n{}", self.thief.cluster.said()))
        })
    }

    /// Sends an order that the host must refuse with this code, and that has had no effect by then.
    #[track_caller]
    pub(super) fn refused(&self, code: &str, content: &v1::OrderContent) {
        let before = self.struck();
        is_refused(code, &self.answer(content));
        assert_eq!(self.struck(), before, "{code}: it ran");
    }

    /// Sends an order that the host must carry out to the end; how it ended.
    #[track_caller]
    pub(super) fn carried_out(&self, content: &v1::OrderContent) -> v1::SegmentEnded {
        let answer = self.answer(content);
        let v1::report::What::SegmentEnded(ended) = answer else {
            panic!("should be carried out: {answer:?}")
        };
        ended
    }

    /// Diagnoses as an honest controller would; the plan's bytes.
    #[track_caller]
    pub(super) fn plan(&self) -> Vec<u8> {
        let order = self.order(diagnose());
        let ended = self.carried_out(&order);
        assert!(matches!(ended.how, Some(v1::segment_ended::How::Done(_))), "{ended:?}");
        let reports = self.thief.reports(&self.host, &self.run.to_string(), order.segment);
        let planned = reports.into_iter().find_map(|what| match what {
            v1::report::What::Planned(planned) => Some(planned.plan.to_vec()),
            v1::report::What::Accepted(_)
            | v1::report::What::Refused(_)
            | v1::report::What::StepStarted(_)
            | v1::report::What::StepEnded(_)
            | v1::report::What::StepSkipped(_)
            | v1::report::What::SegmentEnded(_)
            | v1::report::What::Cancelled(_)
            | v1::report::What::ToldAgain(_)
            | v1::report::What::Paused(_) => None,
        });
        planned.expect("a diagnosis ends in a plan")
    }

    /// Sends an order to remediate that must stop at the gate before the strike.
    #[track_caller]
    pub(super) fn stops_at_the_gate(&self, plan_bytes: &[u8]) {
        let ended = self.carried_out(&self.order(remediate(plan_bytes, None)));
        match &ended.how {
            Some(v1::segment_ended::How::Gate(gate)) => assert_eq!(gate.path, STRIKE),
            other => panic!("should stop at the gate: {other:?}"),
        }
        assert!(!ended.effects, "{ended:?}");
        self.nothing_happened();
    }

    /// The honest end: with this grant it strikes, once.
    #[track_caller]
    pub(super) fn strikes(&self, work: v1::order_content::Work) {
        let ended = self.carried_out(&self.order(work));
        assert_eq!(ended.verification(), v1::Verification::Passed, "{ended:?}");
        assert_eq!(self.struck(), "struck\n");
    }

    /// What shows.
    pub(super) fn struck(&self) -> String {
        fs::read_to_string(&self.marker).unwrap_or_default()
    }

    /// Whether the host said this of a step that ended.
    pub(super) fn heard(&self, text: &str) -> bool {
        let reports =
            (1..=9).flat_map(|segment| self.thief.reports(&self.host, &self.run.to_string(), segment));
        reports.into_iter().any(|what| match what {
            v1::report::What::StepEnded(ended) => ended.message.contains(text),
            v1::report::What::Accepted(_)
            | v1::report::What::Refused(_)
            | v1::report::What::Planned(_)
            | v1::report::What::StepStarted(_)
            | v1::report::What::StepSkipped(_)
            | v1::report::What::SegmentEnded(_)
            | v1::report::What::Cancelled(_)
            | v1::report::What::ToldAgain(_)
            | v1::report::What::Paused(_) => false,
        })
    }

    #[track_caller]
    pub(super) fn nothing_happened(&self) {
        assert!(!self.marker.exists(), "it ran: {}", self.struck());
    }
}

#[track_caller]
pub(super) fn is_refused(code: &str, answer: &v1::report::What) {
    let v1::report::What::Refused(refused) = answer else {
        panic!("should be refused as {code}: {answer:?}")
    };
    assert_eq!(refused.code, code, "{}", refused.message);
}

/// The plan as a leaf of what people approve.
pub(super) fn leaf_of(plan_bytes: &[u8]) -> Leaf {
    let plan = plan::decode(plan_bytes).expect("a plan");
    Leaf { agent: plan.agent, plan: plan::digest_of(plan_bytes), nonce: plan.nonce }
}

/// The hash of nothing in particular.
pub(super) const ELSEWHERE: merkle::Hash = [7; 32];

pub(super) fn approval(request: Digest, person: &str) -> Approval {
    Approval {
        request,
        decision: Decision::Approve,
        person: person.to_owned(),
        reason: "it is needed".to_owned(),
        at: now(),
    }
}

pub(super) fn diagnose() -> v1::order_content::Work {
    v1::order_content::Work::Diagnose(v1::Diagnose {})
}

pub(super) fn verify(plan_bytes: &[u8]) -> v1::order_content::Work {
    v1::order_content::Work::Verify(v1::Verify { plan_digest: plan::digest_of(plan_bytes).0.to_vec().into() })
}

pub(super) fn remediate(plan_bytes: &[u8], grant: Option<Grant>) -> v1::order_content::Work {
    remediate_from(plan_bytes, STRIKE, grant)
}

pub(super) fn remediate_from(plan_bytes: &[u8], from: &str, grant: Option<Grant>) -> v1::order_content::Work {
    v1::order_content::Work::Remediate(v1::Remediate {
        plan_digest: plan::digest_of(plan_bytes).0.to_vec().into(),
        from: from.to_owned(),
        gate_from_risk: String::new(),
        grant: grant.map(Into::into),
    })
}

/// Who wrote what the reviewer certified.
pub(super) const WRITER: &str = AUTHOR;
