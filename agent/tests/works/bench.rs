//! A host in a temporary directory, its people and their keys, and a controller that says what a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fettle_agent::message::{FromWorks, ToWorks};
use fettle_agent::works::{self, Works};
use fettle_proto::grant::Grant;
use fettle_proto::signed::{
    Approval, Certificate, Decision, Factor, Leaf, Namespace, Person, PrivateKey, Request, Roster, Scope,
    Signed, Start, Tag, Trust, Until, digest, plan, sign,
};
use fettle_proto::{merkle, v1};
use fettle_runbooks::id::{Digest, GateId, Host, RunId};
use fettle_runbooks::runbook::Risk;
use jiff::{SignedDuration, Timestamp};
use prost::Message as _;
use tempfile::TempDir;

use crate::wait::eventually;

pub(crate) struct Bench {
    dir: TempDir,
    pub(crate) works: Option<Works>,
    pub(crate) run: RunId,
    pub(crate) heard: Vec<v1::Report>,
    epoch: u64,
}

pub(crate) fn key(of: u8) -> PrivateKey {
    PrivateKey::from_seed([of; 32], "test")
}

const ROOT: u8 = 1;
const ANA: u8 = 2;
const BEN: u8 = 3;
const RITA: u8 = 4;
pub(crate) const SARA: u8 = 5;

fn scopes(all: &[Scope]) -> BTreeSet<Scope> {
    all.iter().copied().collect()
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

/// Ana and Ben approve, Rita reviews what Carl wrote, Sara starts it.
pub(crate) fn roster() -> Signed {
    let person = |name: &str, of: u8, scope| Person {
        name: name.to_owned(),
        keys: vec![key(of).public()],
        groups: BTreeSet::from(["oncall".to_owned()]),
        scopes: scopes(&[scope]),
    };
    let roster = Roster {
        version: 7,
        expires: later(3600),
        persons: vec![
            person("ana", ANA, Scope::Approve),
            person("ben", BEN, Scope::Approve),
            person("rita", RITA, Scope::Review),
            person("sara", SARA, Scope::Start),
        ],
        rules: vec![],
        reviewers_needed: 1,
    };
    sign(&key(ROOT), Namespace::Roster, &roster.encode()).unwrap()
}

pub(crate) fn certificate(runbook: &str) -> Signed {
    let certificate = Certificate {
        runbook: "test/works".to_owned(),
        runbook_digest: digest(Tag::Runbook, runbook.as_bytes()),
        author: "carl".to_owned(),
        reviewer: "rita".to_owned(),
        at: now(),
    };
    sign(&key(RITA), Namespace::Runbook, &certificate.encode()).unwrap()
}

/// Sara wants the run.
pub(crate) fn start(bench: &Bench, runbook: &str) -> Signed {
    let start = Start {
        run: bench.run,
        runbook: "test/works".to_owned(),
        runbook_digest: digest(Tag::Runbook, runbook.as_bytes()),
        inputs: BTreeMap::new(),
        hosts: BTreeSet::from(["web-1".parse().unwrap()]),
        person: "sara".to_owned(),
        at: now(),
        until: Until::End,
        of: None,
    };
    sign(&key(SARA), Namespace::Start, &start.encode()).unwrap()
}

/// An order, before it is bytes.
pub(crate) fn content(
    bench: &Bench,
    segment: u32,
    runbook: &str,
    work: v1::order_content::Work,
) -> v1::OrderContent {
    v1::OrderContent {
        run: bench.run.to_string(),
        host: "web-1".to_owned(),
        segment,
        runbook: runbook.as_bytes().to_vec().into(),
        certificates: vec![certificate(runbook).into()],
        inputs: Default::default(),
        start: None,
        not_after_ms: later(60).as_millisecond(),
        work: Some(work),
    }
}

pub(crate) fn diagnose() -> v1::order_content::Work {
    v1::order_content::Work::Diagnose(v1::Diagnose {})
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let run = "run_0193a1b2c3d4e5f60718293a4b5c6d7e".parse().unwrap();
        let mut bench = Bench { dir, works: None, run, heard: Vec::new(), epoch: 0 };
        bench.start();
        bench.tell(ToWorks::Roster(roster().into()));
        bench.connect(0);
        bench
    }

    pub(crate) fn start(&mut self) {
        let trust = Trust { ca_der: vec![1, 2, 3], roots: vec![key(ROOT).public()] };
        let config = works::Config {
            state: self.dir.path().join("state"),
            host: "web-1".parse().unwrap(),
            labels: BTreeMap::from([("site".to_owned(), "lagos".to_owned())]),
            trust,
            shim: Some(PathBuf::from(env!("CARGO_BIN_EXE_fettle-agent"))),
        };
        std::fs::create_dir_all(&config.state).unwrap();
        self.works = Some(works::spawn(config).unwrap());
    }

    /// Ends the works as a stop of the agent does; steps go on.
    pub(crate) fn stop(&mut self) {
        let works = self.works.take().unwrap();
        works.handle.send(ToWorks::Stop);
        works.thread.join().unwrap();
    }

    pub(crate) fn connect(&mut self, acked: u64) {
        self.epoch += 1;
        self.heard.clear();
        self.tell(ToWorks::Connected { epoch: self.epoch, credits: 1000, acked });
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn written(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    pub(crate) fn tell(&self, message: ToWorks) {
        assert!(self.works.as_ref().unwrap().handle.send(message), "the works have ended");
    }

    pub(crate) fn order(&self, content: &v1::OrderContent) {
        let content = content.encode_to_vec();
        let digest = digest(Tag::Order, &content);
        self.tell(ToWorks::Order { content, digest });
    }

    /// Waits for a report; on timeout, shows what was heard.
    #[track_caller]
    pub(crate) fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&v1::report::What) -> bool,
    ) -> v1::report::What {
        eventually(what, || {
            loop {
                match self.works.as_mut().unwrap().from.try_recv() {
                    Ok(FromWorks::Report(report)) => {
                        let expected = self.heard.last().map_or(report.seq, |last| last.seq + 1);
                        assert_eq!(report.seq, expected, "a gap in the numbers");
                        let what = report.what.clone().unwrap();
                        self.heard.push(report);
                        if wanted(&what) {
                            return Ok(what);
                        }
                    }
                    Ok(FromWorks::Greeting(_)) => {}
                    Err(_) => return Err(self.transcript()),
                }
            }
        })
    }

    #[track_caller]
    pub(crate) fn ended(&mut self) -> v1::SegmentEnded {
        let what = self.until("end of the segment", |what| matches!(what, v1::report::What::SegmentEnded(_)));
        let v1::report::What::SegmentEnded(ended) = what else { panic!("{what:?}") };
        ended
    }

    #[track_caller]
    pub(crate) fn refused(&mut self) -> String {
        let what = self.until("refusal", |what| matches!(what, v1::report::What::Refused(_)));
        let v1::report::What::Refused(refused) = what else { panic!("{what:?}") };
        refused.code
    }

    /// Diagnoses, and gives the plan's bytes.
    #[track_caller]
    pub(crate) fn plan(&mut self, runbook: &str) -> Vec<u8> {
        self.order(&content(self, 1, runbook, diagnose()));
        let planned = self.until("plan", |what| matches!(what, v1::report::What::Planned(_)));
        let ended = self.ended();
        assert!(matches!(ended.how, Some(v1::segment_ended::How::Done(_))), "{ended:?}");
        let v1::report::What::Planned(planned) = planned else { panic!("{planned:?}") };
        planned.plan.to_vec()
    }

    /// What was heard, one line a report.
    pub(crate) fn transcript(&self) -> String {
        self.heard.iter().map(|report| line(report.what.as_ref().unwrap())).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.works.is_some() {
            self.stop();
        }
    }
}

pub(crate) fn remediate(plan_bytes: &[u8], from: &str, grant: Option<Grant>) -> v1::order_content::Work {
    v1::order_content::Work::Remediate(v1::Remediate {
        plan_digest: plan::digest_of(plan_bytes).0.to_vec().into(),
        from: from.to_owned(),
        gate_from_risk: String::new(),
        grant: grant.map(Into::into),
    })
}

/// Ana's approval, and Ben's when two are needed.
pub(crate) fn grant(bench: &Bench, runbook: &str, plan_bytes: &[u8], approvers: &[&str]) -> Grant {
    let plan = plan::decode(plan_bytes).unwrap();
    let host: Host = "web-1".parse().unwrap();
    let leaf = Leaf { agent: host, plan: plan::digest_of(plan_bytes), nonce: plan.nonce.clone() };
    let request = Request {
        run: bench.run,
        gate: "gate_0193a1b2c3d4e5f60718293a4b5c6d7f".parse::<GateId>().unwrap(),
        runbook: plan.runbook,
        runbook_digest: digest(Tag::Runbook, runbook.as_bytes()),
        start: None,
        requester: None,
        factors: vec![Factor { from: BTreeSet::new(), need: 1 }],
        decide_by: later(60),
        start_by: later(60),
        root: merkle::root(&[leaf.hash()]),
        leaves: 1,
        risk: Risk::Critical,
        again: None,
    };
    let request = request.encode();
    let approvals = approvers.iter().map(|person| approval(person, Request::digest(&request))).collect();
    Grant { request, approvals, leaf_index: 0, leaf_count: 1, merkle_path: vec![] }
}

fn approval(person: &str, request: Digest) -> Signed {
    let approval = Approval {
        request,
        decision: Decision::Approve,
        person: person.to_owned(),
        reason: "it is needed".to_owned(),
        at: now(),
    };
    let of = if person == "ana" { ANA } else { BEN };
    sign(&key(of), Namespace::Approval, &approval.encode()).unwrap()
}

fn line(what: &v1::report::What) -> String {
    use v1::report::What;
    match what {
        What::Accepted(_) => "accepted".to_owned(),
        What::Refused(refused) => format!("refused {}", refused.code),
        What::Planned(planned) if planned.impossible.is_empty() => "planned".to_owned(),
        What::Planned(planned) => format!("planned, impossible: {:?}", planned.impossible),
        What::StepStarted(step) => format!("started {} {}", step.path, step.attempt),
        What::StepEnded(step) if step.message.is_empty() => {
            format!("{} {} {}", step.outcome, step.path, step.attempt)
        }
        What::StepEnded(step) => format!("{} {} {}: {}", step.outcome, step.path, step.attempt, step.message),
        What::StepSkipped(step) => format!("skipped {}", step.path),
        What::SegmentEnded(ended) => {
            let how = match &ended.how {
                None => "?".to_owned(),
                Some(v1::segment_ended::How::Done(_)) => "done".to_owned(),
                Some(v1::segment_ended::How::Gate(gate)) => format!("gate {}", gate.path),
                Some(v1::segment_ended::How::Failed(failed)) => {
                    format!("failed {}: {}", failed.path, failed.reason)
                }
                Some(v1::segment_ended::How::Unknown(unknown)) => format!("unknown {}", unknown.path),
                Some(v1::segment_ended::How::Stopped(stopped)) => format!("stopped: {}", stopped.reason),
            };
            let verify = match ended.verification() {
                v1::Verification::NotRun => "not verified",
                v1::Verification::Passed => "verified",
                v1::Verification::Failed => "verify failed",
            };
            format!("end: {how}, {verify}")
        }
        What::ToldAgain(told) => format!("told again, {} reports", told.reports.len()),
        What::Paused(paused) if paused.on => format!("paused {}", paused.count),
        What::Paused(paused) => format!("not paused {}", paused.count),
        What::Cancelled(cancelled) if cancelled.interrupted.is_empty() => "cancelled".to_owned(),
        What::Cancelled(cancelled) => format!("cancelled, interrupted {}", cancelled.interrupted),
    }
}
