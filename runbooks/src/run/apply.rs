//! The transitions, one function per event; each names every state.

use super::{
    Checking, Effect, Ending, Event, Final, Held, HostRun, Illegal, Meanwhile, Passage, Resolution, State,
    Unclear, Until, Wait, Work,
};
use crate::segment::{How, Outcome, Undoing, Verification};

/// What to do, or `None`: that cannot happen here.
pub(super) type Answer = Option<Vec<Effect>>;

pub(super) const NOTHING: Answer = Some(Vec::new());

impl HostRun {
    /// Takes what happened; answers with the run as it is now and what to do. An illegal event changes nothing.
    pub fn apply(&self, event: &Event) -> Result<(HostRun, Vec<Effect>), Illegal> {
        let mut next = self.clone();
        match next.take(event) {
            Some(effects) => Ok((next, effects)),
            None => Err(Illegal { state: Box::new(self.state.clone()), event: Box::new(event.clone()) }),
        }
    }

    /// The host carries out another order than ours under the number of our last, which it will never carry out: it knew more than
    /// we do. `looks`: that order only looks whether the symptom is gone. `gate`: the step before which people were asked last.
    #[must_use]
    pub fn overtaken(&self, looks: bool, gate: Option<&str>) -> HostRun {
        let mut next = self.clone();
        match &self.state {
            // A diagnosis is one, whoever orders it; what ends anyway, or is being stopped, does so.
            _ if self.segment < 2 => {}
            State::Cancelling { .. } | State::Ended(_) => {}
            State::Verifying { otherwise: Some(_) } if looks => {}
            // What there is to do at a gate was done when the host was ordered this.
            _ if !looks => drop(next.catch_up(self.segment)),
            State::Created
            | State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Waiting(_)
            | State::Verifying { .. }
            | State::Undoing => match (next.again.take(), gate) {
                // Nobody knows yet what people let run again.
                (Some(Unclear { path, attempt }), _) => {
                    next.state = State::Waiting(Wait::Resolve { path, attempt, cancelled: false });
                }
                (None, Some(from)) => {
                    let checking = Some(Checking::Undecided);
                    next.state = State::Waiting(Wait::Gate { from: from.to_owned(), checking });
                }
                (None, None) => {}
            },
        }
        next
    }

    /// A host has told all that it knows up to the end of this segment, and its approved steps were to be sent it next: people are
    /// asked about these again, for nobody knows whether they were sent. `gate`: the step before which people were asked last.
    #[must_use]
    pub fn unsent_after(&self, segment: u32, gate: &str) -> HostRun {
        let mut next = self.clone();
        if self.state == State::Remediating && self.segment > segment && self.again.is_none() {
            next.segment = segment;
            next.state = State::Waiting(Wait::Gate { from: gate.to_owned(), checking: None });
        }
        next
    }

    /// The host has gone on to a segment that only looks whether the symptom is gone, while people were asked.
    #[must_use]
    pub fn looks(&self, segment: u32) -> HostRun {
        let mut next = self.clone();
        match &mut next.state {
            State::Waiting(Wait::Gate { checking, .. }) => {
                (*checking, next.segment) = (Some(Checking::Undecided), segment);
            }
            State::Verifying { otherwise: Some(_) } => next.segment = segment,
            State::Created
            | State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Waiting(Wait::Wave { .. } | Wait::Window { .. } | Wait::Resolve { .. })
            | State::Verifying { otherwise: None }
            | State::Undoing
            | State::Cancelling { .. }
            | State::Ended(_) => {}
        }
        next
    }

    fn take(&mut self, event: &Event) -> Answer {
        match event {
            Event::Started => self.started(),
            Event::Accepted { segment } => self.report(*segment, |_| NOTHING),
            Event::Refused { segment, code, message } => {
                self.report(*segment, |run| run.refused(format!("{code}: {message}")))
            }
            Event::Planned { segment, first } => self.report(*segment, |run| run.planned(first.as_deref())),
            Event::Entered { segment, passage, path, attempt } => {
                self.report(*segment, |run| run.entered(*passage, path, *attempt))
            }
            Event::SegmentEnded { segment, outcome } => {
                self.report(*segment, |run| run.segment_ended(outcome))
            }
            Event::Admitted => self.admitted(),
            Event::Held(held) => self.held(*held),
            Event::Barred { reason } => self.barred(reason),
            Event::GateApproved => self.gate_approved(),
            Event::GateDenied { reason } => self.gate_refused(Ending::Rejected, reason),
            Event::GateExpired { reason } => self.gate_refused(Ending::Expired, reason),
            Event::GateClosed { reason } => self.gate_closed(reason),
            Event::AlertResolved => self.alert_resolved(),
            Event::CancelAsked { reason } => self.cancel_asked(reason),
            Event::Cancelled { interrupted } => self.cancelled(interrupted.as_deref()),
            Event::Resolved(resolution) => self.resolved(*resolution),
            Event::PauseAsked { reason } => self.pause_asked(reason),
            Event::ResumeAsked => self.resume_asked(),
            Event::PauseTold { on, count } => self.pause_told(*on, *count),
        }
    }

    /// Fences a report by its segment: history changes nothing, and a host that is ahead of us is believed.
    fn report(&mut self, segment: u32, then: impl FnOnce(&mut HostRun) -> Answer) -> Answer {
        if self.ended().is_some() || segment < self.segment {
            return NOTHING;
        }
        let mut effects = if segment > self.segment { self.catch_up(segment) } else { Vec::new() };
        effects.extend(then(self)?);
        Some(effects)
    }

    fn catch_up(&mut self, segment: u32) -> Vec<Effect> {
        self.segment = segment;
        let effects = self.close_gate("the host has gone on");
        // From where a person is asked the host goes on only because people let the step run again.
        self.again = self.unclear();
        match &self.state {
            State::Created if segment == 1 => self.state = State::Diagnosing,
            State::Created
            | State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Waiting(_)
            | State::Verifying { .. }
            | State::Undoing => self.state = State::Remediating,
            State::Cancelling { .. } | State::Ended(_) => {}
        }
        effects
    }

    fn started(&mut self) -> Answer {
        match &self.state {
            State::Created => {
                self.state = State::Diagnosing;
                Some(vec![self.send(Work::Diagnose)])
            }
            State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Waiting(_)
            | State::Verifying { .. }
            | State::Undoing
            | State::Cancelling { .. }
            | State::Ended(_) => None,
        }
    }

    fn refused(&mut self, why: String) -> Answer {
        match self.state.clone() {
            State::Diagnosing => self.end(Final::new(Ending::Refused, why)),
            State::Remediating | State::Undoing | State::Verifying { otherwise: None } => {
                if self.again.is_some() {
                    return self.still_unknown(&format!("the host refused to run it again: {why}"));
                }
                self.verify_or_end(Final::new(Ending::Refused, why))
            }
            State::Verifying { otherwise: Some(otherwise) } => self.end(otherwise),
            State::Waiting(Wait::Gate { from, checking: Some(checking) }) => {
                self.looked(from, checking, false)
            }
            State::Cancelling { .. } => NOTHING,
            State::Created
            | State::Planned { .. }
            | State::Waiting(
                Wait::Gate { checking: None, .. }
                | Wait::Wave { .. }
                | Wait::Window { .. }
                | Wait::Resolve { .. },
            )
            | State::Ended(_) => None,
        }
    }

    fn planned(&mut self, first: Option<&str>) -> Answer {
        match (&self.state, first, self.until) {
            (State::Diagnosing, None, _) => {
                self.end(Final::new(Ending::Succeeded, "diagnosed; there is nothing to remediate"))
            }
            (State::Diagnosing, Some(_), Until::Plan) => {
                self.end(Final::new(Ending::Succeeded, "stopped at the plan"))
            }
            (State::Diagnosing, Some(first), Until::End) => {
                self.state = State::Planned { first: first.to_owned() };
                if self.pause.on { NOTHING } else { Some(vec![Effect::AskGuards]) }
            }
            (State::Cancelling { .. }, _, _) => NOTHING,
            (
                State::Created
                | State::Planned { .. }
                | State::Remediating
                | State::Waiting(_)
                | State::Verifying { .. }
                | State::Undoing
                | State::Ended(_),
                _,
                _,
            ) => None,
        }
    }

    fn entered(&mut self, passage: Passage, path: &str, attempt: u32) -> Answer {
        match &self.state {
            State::Remediating | State::Undoing | State::Verifying { otherwise: None } => {
                self.state = match passage {
                    Passage::Diagnose => return None,
                    Passage::Remediate => {
                        self.effects = true;
                        self.began_again(path, attempt);
                        State::Remediating
                    }
                    Passage::Undo => {
                        // Of a run that undoes, such a step may itself be the one that runs again.
                        self.began_again(path, attempt);
                        State::Undoing
                    }
                    Passage::Verify => State::Verifying { otherwise: None },
                };
                NOTHING
            }
            State::Diagnosing => only(passage, Passage::Diagnose),
            State::Verifying { otherwise: Some(_) }
            | State::Waiting(Wait::Gate { checking: Some(_), .. }) => only(passage, Passage::Verify),
            State::Cancelling { .. } => {
                self.effects |= passage == Passage::Remediate;
                self.began_again(path, attempt);
                NOTHING
            }
            State::Created
            | State::Planned { .. }
            | State::Waiting(
                Wait::Gate { checking: None, .. }
                | Wait::Wave { .. }
                | Wait::Window { .. }
                | Wait::Resolve { .. },
            )
            | State::Ended(_) => None,
        }
    }

    fn segment_ended(&mut self, outcome: &Outcome) -> Answer {
        self.effects |= outcome.effects;
        match self.state.clone() {
            State::Diagnosing => match &outcome.how {
                How::Failed { path, reason } => {
                    self.end(Final::new(Ending::Failed, format!("{path}: {reason}")))
                }
                How::Stopped { reason } => self.end(Final::new(Ending::Refused, reason)),
                // It came to no plan: its host keeps none of a runbook that only diagnoses, and tells of none when it tells again.
                How::Done if outcome.verification == Verification::NotRun => self.planned(None),
                How::Done | How::Gate { .. } | How::Unknown { .. } => None,
            },
            // The end of the diagnosis, whose plan came before it.
            State::Planned { .. } | State::Waiting(Wait::Wave { .. } | Wait::Window { .. }) => {
                match &outcome.how {
                    How::Done => NOTHING,
                    How::Gate { .. } | How::Failed { .. } | How::Unknown { .. } | How::Stopped { .. } => None,
                }
            }
            State::Remediating | State::Undoing | State::Verifying { otherwise: None } => {
                self.remediated(outcome)
            }
            State::Verifying { otherwise: Some(otherwise) } => match (&outcome.how, outcome.verification) {
                // Its host has lost what became of a step, and only now shows it. A no of people stays one.
                (How::Unknown { path, attempt, reason }, _)
                    if !matches!(otherwise.ending, Ending::Rejected | Ending::Expired) =>
                {
                    self.ask_resolve(path, *attempt, reason, false)
                }
                (_, Verification::Passed) => self
                    .end(Final::new(Ending::Verified, format!("the symptom is gone ({})", otherwise.reason))),
                (_, Verification::Failed | Verification::NotRun) => self.end(otherwise),
            },
            State::Waiting(Wait::Gate { from, checking: Some(checking) }) => match &outcome.how {
                // It waits for people either way; what they would approve comes after a step that nobody knows.
                How::Unknown { path, attempt, reason } => {
                    let mut effects = self.close_gate(&format!("nobody can tell what became of {path}"));
                    effects.extend(self.ask_resolve(path, *attempt, reason, false)?);
                    Some(effects)
                }
                How::Done | How::Gate { .. } | How::Failed { .. } | How::Stopped { .. } => {
                    self.looked(from, checking, outcome.verification == Verification::Passed)
                }
            },
            State::Cancelling { reason, .. } => {
                let meanwhile = match self.again.clone() {
                    Some(unclear) => Some(Meanwhile::from(unclear)),
                    None => meanwhile(self.segment, outcome),
                };
                self.state = State::Cancelling { reason, meanwhile };
                NOTHING
            }
            State::Created
            | State::Waiting(Wait::Gate { checking: None, .. } | Wait::Resolve { .. })
            | State::Ended(_) => None,
        }
    }

    fn remediated(&mut self, outcome: &Outcome) -> Answer {
        if let Some(unclear) = &self.again {
            let why = match &outcome.how {
                // Its host says why.
                How::Unknown { path, attempt, reason } if *path == unclear.path => {
                    let (path, attempt) = (path.clone(), (*attempt).max(unclear.attempt));
                    return self.ask_resolve(&path, attempt, reason, false);
                }
                How::Failed { path, reason } | How::Unknown { path, reason, .. } => {
                    format!("{path}: {reason}")
                }
                How::Stopped { reason } => reason.clone(),
                How::Gate { path } => format!("{path} waits for people"),
                How::Done => "its condition did not hold".to_owned(),
            };
            return self.still_unknown(&format!("it was not run again: {why}"));
        }
        match (&outcome.how, Final::of(outcome)) {
            (How::Gate { path }, _) => {
                self.state = State::Waiting(Wait::Gate { from: path.clone(), checking: None });
                Some(vec![Effect::OpenGate { from: path.clone() }])
            }
            (How::Unknown { path, attempt, reason }, _) => self.ask_resolve(path, *attempt, reason, false),
            (How::Done | How::Failed { .. } | How::Stopped { .. }, how) => self.end(how?),
        }
    }

    /// The look at the symptom that a resolved alert asked for is over.
    fn looked(&mut self, from: String, checking: Checking, gone: bool) -> Answer {
        match (gone, checking) {
            (true, Checking::Undecided) => {
                let mut effects = vec![Effect::CloseGate { reason: "the symptom is gone".to_owned() }];
                effects.extend(
                    self.end(Final::new(Ending::Verified, "the symptom went away before anybody decided"))?,
                );
                Some(effects)
            }
            (true, Checking::Approved) => self
                .end(Final::new(Ending::Verified, "the symptom went away before the approved steps began")),
            // They may have approved while it was paused, and it was resumed during the look.
            (false, Checking::Undecided) => {
                self.state = State::Waiting(Wait::Gate { from, checking: None });
                Some(vec![Effect::AskGate])
            }
            // When it is resumed, the gate is asked again.
            (false, Checking::Approved) if self.pause.on => {
                self.state = State::Waiting(Wait::Gate { from, checking: None });
                NOTHING
            }
            (false, Checking::Approved) => self.remediate(from, true),
        }
    }

    fn admitted(&mut self) -> Answer {
        let first = self.at_guards().filter(|_| !self.pause.on)?;
        self.remediate(first, false)
    }

    fn held(&mut self, held: Held) -> Answer {
        let first = self.at_guards()?;
        self.state = State::Waiting(match held {
            Held::Wave => Wait::Wave { first },
            Held::Window => Wait::Window { first },
        });
        NOTHING
    }

    fn barred(&mut self, reason: &str) -> Answer {
        if self.state != State::Created {
            self.at_guards()?;
        }
        self.end(Final::new(Ending::Refused, reason))
    }

    /// The first step of a plan that the guards have not let pass yet.
    fn at_guards(&self) -> Option<String> {
        match &self.state {
            State::Planned { first } | State::Waiting(Wait::Wave { first } | Wait::Window { first }) => {
                Some(first.clone())
            }
            State::Created
            | State::Diagnosing
            | State::Remediating
            | State::Waiting(Wait::Gate { .. } | Wait::Resolve { .. })
            | State::Verifying { .. }
            | State::Undoing
            | State::Cancelling { .. }
            | State::Ended(_) => None,
        }
    }

    /// The open gate: its first step, and whether somebody is looking at the symptom.
    fn at_gate(&self) -> Option<(String, Option<Checking>)> {
        match &self.state {
            State::Waiting(Wait::Gate { from, checking }) => Some((from.clone(), *checking)),
            State::Created
            | State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Waiting(Wait::Wave { .. } | Wait::Window { .. } | Wait::Resolve { .. })
            | State::Verifying { .. }
            | State::Undoing
            | State::Cancelling { .. }
            | State::Ended(_) => None,
        }
    }

    fn gate_approved(&mut self) -> Answer {
        if let Some(path) = self.at_again_gate() {
            return if self.pause.on { None } else { self.remediate(path, true) };
        }
        match self.at_gate()? {
            (_, None) if self.pause.on => None,
            (from, None) => self.remediate(from, true),
            (from, Some(Checking::Undecided)) => {
                self.state = State::Waiting(Wait::Gate { from, checking: Some(Checking::Approved) });
                NOTHING
            }
            (_, Some(Checking::Approved)) => None,
        }
    }

    fn gate_refused(&mut self, ending: Ending, reason: &str) -> Answer {
        if self.at_again_gate().is_some() {
            return self.still_unknown(&format!("it is not to run again: {reason}"));
        }
        let otherwise = Final::new(ending, reason);
        match self.at_gate()?.1 {
            None => self.verify_or_end(otherwise),
            Some(Checking::Undecided | Checking::Approved) => {
                self.state = State::Verifying { otherwise: Some(otherwise) };
                NOTHING
            }
        }
    }

    fn gate_closed(&mut self, reason: &str) -> Answer {
        if self.at_again_gate().is_some() {
            return self.still_unknown(reason);
        }
        self.at_gate()?;
        self.state = State::Cancelling { reason: reason.to_owned(), meanwhile: None };
        Some(vec![Effect::AskCancel { reason: reason.to_owned() }])
    }

    fn alert_resolved(&mut self) -> Answer {
        if let Some((from, None)) = self.at_gate() {
            self.state = State::Waiting(Wait::Gate { from, checking: Some(Checking::Undecided) });
            return Some(vec![self.send(Work::Verify)]);
        }
        NOTHING
    }

    fn cancel_asked(&mut self, reason: &str) -> Answer {
        let meanwhile = match &self.state {
            State::Created => return self.end(Final::new(Ending::Cancelled, reason)),
            State::Cancelling { .. } => return NOTHING,
            State::Ended(_) => return None,
            State::Waiting(Wait::Resolve { cancelled: true, .. }) => return NOTHING,
            State::Waiting(Wait::Resolve { path, attempt, cancelled: false }) => {
                Some(Meanwhile::Unknown { path: path.clone(), attempt: *attempt })
            }
            // Until it has begun again, what became of it is as unknown as before.
            State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Waiting(Wait::Gate { .. } | Wait::Wave { .. } | Wait::Window { .. })
            | State::Verifying { .. }
            | State::Undoing => self.again.clone().map(Meanwhile::from),
        };
        let mut effects = self.close_gate(reason);
        self.state = State::Cancelling { reason: reason.to_owned(), meanwhile };
        effects.push(Effect::AskCancel { reason: reason.to_owned() });
        Some(effects)
    }

    fn cancelled(&mut self, interrupted: Option<&str>) -> Answer {
        let (reason, meanwhile) = match self.state.clone() {
            State::Cancelling { reason, meanwhile } => (reason, meanwhile),
            State::Ended(_) | State::Waiting(Wait::Resolve { cancelled: true, .. }) => return NOTHING,
            // A tombstone we did not ask for: from before we were restored.
            State::Created
            | State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Waiting(_)
            | State::Verifying { .. }
            | State::Undoing => {
                let unclear = self.unclear().map(Meanwhile::from);
                ("the host has a tombstone for the run".to_owned(), unclear)
            }
        };
        let mut effects = self.close_gate(&reason);
        let after = match (interrupted, meanwhile) {
            (Some(path), Some(Meanwhile::Unknown { path: unclear, attempt })) if *path == *unclear => {
                self.ask_resolve(path, attempt, "its outcome was unknown when the run was cancelled", true)
            }
            (Some(path), _) => {
                self.ask_resolve(path, 0, "it was stopped midway and may have had part of its effect", true)
            }
            (None, Some(Meanwhile::Unknown { path, attempt })) => {
                self.ask_resolve(&path, attempt, "its outcome was unknown when the run was cancelled", true)
            }
            (None, Some(Meanwhile::Ended(how))) => self.end(how),
            (None, None) => self.end(Final::new(Ending::Cancelled, reason)),
        };
        effects.extend(after?);
        Some(effects)
    }

    fn resolved(&mut self, resolution: Resolution) -> Answer {
        let State::Waiting(Wait::Resolve { path, attempt, cancelled }) = self.state.clone() else {
            return None;
        };
        let ran = match resolution {
            Resolution::Ran => true,
            Resolution::DidNotRun => false,
            Resolution::Again => return if cancelled { None } else { self.again_asked(path, attempt) },
        };
        let found = if ran { "did run" } else { "did not run" };
        // Of a host whose word is missing nobody knows what came after it.
        let after = if cancelled { "" } else { "; no step after it was started" };
        let reason = format!("{path} {found}, says the person who looked{after}");
        let mut effects = self.close_gate("a person has looked");
        self.again = None;
        let then = match (cancelled, ran) {
            (true, _) => self.end(Final::new(Ending::Cancelled, reason)),
            (false, true) => self.verify(Final::new(Ending::Unverified, reason)),
            (false, false) => self.verify(Final::new(Ending::Failed, reason)),
        };
        effects.extend(then?);
        Some(effects)
    }

    // --- what the transitions are made of ---

    fn send(&mut self, work: Work) -> Effect {
        self.segment += 1;
        Effect::SendSegment { segment: self.segment, work }
    }

    pub(super) fn remediate(&mut self, from: String, granted: bool) -> Answer {
        self.state = State::Remediating;
        Some(vec![self.send(Work::Remediate { from, granted })])
    }

    fn verify(&mut self, otherwise: Final) -> Answer {
        self.state = State::Verifying { otherwise: Some(otherwise) };
        Some(vec![self.send(Work::Verify)])
    }

    /// Something was done, so the symptom is read again before the run ends; otherwise it ends at once.
    fn verify_or_end(&mut self, how: Final) -> Answer {
        if self.effects { self.verify(how) } else { self.end(how) }
    }

    fn end(&mut self, how: Final) -> Answer {
        self.state = State::Ended(how.clone());
        Some(vec![Effect::End(how)])
    }

    pub(super) fn ask_resolve(&mut self, path: &str, attempt: u32, reason: &str, cancelled: bool) -> Answer {
        self.again = None;
        self.state = State::Waiting(Wait::Resolve { path: path.to_owned(), attempt, cancelled });
        Some(vec![Effect::AskResolve { path: path.to_owned(), attempt, reason: reason.to_owned() }])
    }

    /// Tells the people of an undecided gate that it is not needed any more.
    fn close_gate(&self, reason: &str) -> Vec<Effect> {
        if self.at_again_gate().is_some() {
            return vec![Effect::CloseGate { reason: reason.to_owned() }];
        }
        match self.at_gate() {
            Some((_, None | Some(Checking::Undecided))) => {
                vec![Effect::CloseGate { reason: reason.to_owned() }]
            }
            Some((_, Some(Checking::Approved))) | None => Vec::new(),
        }
    }
}

fn only(passage: Passage, expected: Passage) -> Answer {
    if passage == expected { NOTHING } else { None }
}

/// What a segment that ended while its run is being cancelled means for the run. Segment 1 is the diagnosis.
fn meanwhile(segment: u32, outcome: &Outcome) -> Option<Meanwhile> {
    match &outcome.how {
        How::Unknown { path, attempt, .. } => {
            Some(Meanwhile::Unknown { path: path.clone(), attempt: *attempt })
        }
        // That an undo did not come through is worse than that it was stopped.
        How::Stopped { .. } if outcome.undoing == Undoing::Failed => Some(Meanwhile::Ended(Final::new(
            Ending::Failed,
            "an undo failed, and the run was cancelled after it",
        ))),
        How::Gate { .. } | How::Stopped { .. } => None,
        How::Done | How::Failed { .. } if segment == 1 => None,
        // It only looked, or found nothing to do: that the symptom is still there ends nothing.
        How::Done
            if !outcome.effects
                && outcome.undoing == Undoing::None
                && outcome.verification != Verification::Passed =>
        {
            None
        }
        How::Done | How::Failed { .. } => Final::of(outcome).map(Meanwhile::Ended),
    }
}
