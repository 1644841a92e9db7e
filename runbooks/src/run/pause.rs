//! People pause a host run, and resume it.
//!
//! While it is paused, nothing that acts is sent to the host, and the host starts nothing that acts. What runs goes on and is
//! recorded; what only reads goes on; gates stay open, and their times run out as they would. What the pause kept from being
//! sent is asked for anew when it is resumed, so that it is judged by what holds then.

use super::apply::{Answer, NOTHING};
use super::{Effect, HostRun, Pause, State, Wait};

impl Pause {
    /// Nobody has ever paused it.
    pub fn never(&self) -> bool {
        *self == Pause::default()
    }

    /// The host has the last that it was asked on its disk.
    pub fn is_confirmed(&self) -> bool {
        self.asked == self.confirmed
    }
}

impl HostRun {
    /// Whether another run differs from this one only in whether it is paused and whether a step of it is to run again.
    pub fn but_for_marks(&self, other: &HostRun) -> bool {
        let marks = HostRun { pause: other.pause.clone(), again: other.again.clone(), ..self.clone() };
        marks == *other
    }

    pub(super) fn pause_asked(&mut self, reason: &str) -> Answer {
        if self.ended().is_some() {
            return None;
        }
        if self.pause.on {
            return NOTHING;
        }
        self.pause.on = true;
        self.pause.reason = reason.to_owned();
        self.pause.asked = self.pause.asked.saturating_add(1);
        Some(vec![Effect::AskPause])
    }

    pub(super) fn resume_asked(&mut self) -> Answer {
        if self.ended().is_some() || !self.pause.on {
            return None;
        }
        self.pause.on = false;
        self.pause.reason.clear();
        self.pause.asked = self.pause.asked.saturating_add(1);
        Some(std::iter::once(Effect::AskPause).chain(self.go_on()).collect())
    }

    /// What the pause kept from being done.
    fn go_on(&self) -> Option<Effect> {
        match &self.state {
            State::Planned { .. } | State::Waiting(Wait::Wave { .. } | Wait::Window { .. }) => {
                Some(Effect::AskGuards)
            }
            State::Waiting(Wait::Gate { checking: None, .. } | Wait::Resolve { .. }) => Some(Effect::AskGate),
            State::Remediating | State::Undoing | State::Verifying { .. } => Some(Effect::SendAgain),
            State::Created
            | State::Diagnosing
            | State::Waiting(Wait::Gate { checking: Some(_), .. })
            | State::Cancelling { .. }
            | State::Ended(_) => None,
        }
    }

    /// What the host says it was told last. It knows more than we do when we were restored from a backup, and then counts.
    pub(super) fn pause_told(&mut self, on: bool, count: u32) -> Answer {
        if self.ended().is_some() {
            return NOTHING;
        }
        if count < self.pause.asked {
            // It had confirmed more, and has lost that: its disk was put back.
            if self.pause.is_confirmed() && on != self.pause.on {
                self.pause.confirmed = count;
                return Some(vec![Effect::AskPause]);
            }
            return NOTHING;
        }
        if count == self.pause.asked && on != self.pause.on {
            // Two stories under one number: ours is told again.
            self.pause.asked = self.pause.asked.saturating_add(1);
            return Some(vec![Effect::AskPause]);
        }
        if count > self.pause.asked && self.pause.on && !on && !self.pause.is_confirmed() {
            // Somebody has asked for this pause since we were restored; what the host was told before that does not end it.
            self.pause.asked = count.saturating_add(1);
            return Some(vec![Effect::AskPause]);
        }
        let goes_on = self.pause.on && !on;
        if count > self.pause.asked {
            let reason = if on { "the host had been told to pause it" } else { "" };
            self.pause = Pause { on, reason: reason.to_owned(), asked: count, confirmed: count };
        }
        self.pause.confirmed = count;
        Some(if goes_on { self.go_on().into_iter().collect() } else { Vec::new() })
    }
}
