//! What people signed for at a gate, read from their signatures and not from what its row says.

use std::collections::BTreeSet;

use fettle_controller::model::row::{GateRow, Leaf};
use fettle_proto::signed::{self, Approval, Decision, Request, Signed};
use fettle_proto::{merkle, v1};

use super::Checker;

impl Checker {
    /// What people have signed for at a gate: its request covers exactly the plans of its row, as many persons of the roster as it
    /// asks for have approved it, and nobody has denied.
    pub(super) fn agreed(&self, gate: &GateRow) -> Result<Request, String> {
        let bytes = gate.request.bytes();
        let request =
            Request::decode(&bytes).map_err(|error| format!("its request cannot be read: {error}"))?;
        let leaves = gate.leaves.iter().map(|Leaf { host, plan, nonce, .. }| {
            signed::Leaf { agent: host.clone(), plan: *plan, nonce: nonce.clone() }.hash()
        });
        let root = merkle::root(&leaves.collect::<Vec<_>>());
        if (request.run, request.gate, request.root) != (gate.run, gate.id, root)
            || request.leaves != gate.leaves.len() as u64
        {
            return Err("its request is about something else".to_owned());
        }
        let mut approved = BTreeSet::new();
        for decision in &gate.decisions {
            let signed = Signed::try_from(v1::Signed::from(&decision.signed));
            let signed = signed.map_err(|error| format!("a decision cannot be read: {error}"))?;
            let (approval, person) = Approval::verify(&signed, &self.roster).map_err(|refusal| {
                format!("the decision of {} counts for nothing: {refusal}", decision.person)
            })?;
            if approval.request != Request::digest(&bytes) || person.name != decision.person {
                return Err(format!("the decision of {} is about something else", decision.person));
            }
            if approval.decision != Decision::Approve || gate.excluded.contains_key(&person.name) {
                return Err(format!("{} has denied, or may not decide", person.name));
            }
            approved.insert(&person.name);
        }
        // The cast has no groups.
        let needed = request.factors.iter().map(|factor| factor.need).max().unwrap_or_default().max(1);
        match u32::try_from(approved.len()).is_ok_and(|persons| persons >= needed) {
            true => Ok(request),
            false => Err(format!("only {approved:?} of {needed} have approved it")),
        }
    }
}
