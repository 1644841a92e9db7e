//! What systemd stops and starts besides the unit that a step names, as the units' files have it.
//!
//! Deliberately missing: what units do by themselves when another one has ended (`OnFailure=`, sockets, timers, paths), and
//! what happens between this look and systemd's own.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use fettle_runbooks::unit::Verb;

use super::super::systemd::Unit;

/// A step that would have to look at more units than this is refused.
const MOST: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Stops,
    Starts,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Stops => "stops",
            Way::Starts => "starts",
        })
    }
}

/// Which other units that run systemd stops too, and which that do not run it starts too. `look` reads a unit.
///
/// # Errors
/// When a unit cannot be read, or there are too many.
pub(super) async fn of(
    verb: Verb,
    unit: &Unit,
    look: impl AsyncFn(&str) -> Result<Unit, String>,
) -> Result<Vec<(Way, Unit)>, String> {
    let ways = match verb {
        Verb::Start => &[Way::Starts][..],
        Verb::Stop => &[Way::Stops],
        Verb::Restart => &[Way::Stops, Way::Starts],
        Verb::Reload => &[],
    };
    let mut todo: VecDeque<(Way, Unit)> = ways.iter().map(|way| (*way, unit.clone())).collect();
    let mut asked: BTreeSet<(Way, String)> =
        [Way::Stops, Way::Starts].into_iter().map(|way| (way, unit.id.clone())).collect();
    let mut found = Vec::new();
    while let Some((way, unit)) = todo.pop_front() {
        let (same, stops) = match way {
            Way::Stops => (&unit.stops, &[][..]),
            Way::Starts => (&unit.starts, &*unit.conflicts),
        };
        let next = same.iter().map(|name| (way, name)).chain(stops.iter().map(|name| (Way::Stops, name)));
        for (way, name) in next {
            if !asked.insert((way, name.clone())) {
                continue;
            }
            if asked.len() > MOST {
                return Err(format!("systemd would look at more than {MOST} other units for it"));
            }
            let other = look(name).await?;
            let changes = match way {
                Way::Stops => !matches!(&*other.active_state, "inactive" | "failed"),
                Way::Starts => other.load_state == "loaded" && !other.runs(),
            };
            let is_new = other.id == *name || asked.insert((way, other.id.clone()));
            if changes && is_new {
                found.push((way, other.clone()));
                todo.push_back((way, other));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(id: &str, state: &str, links: [&[&str]; 3]) -> Unit {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Unit {
            id: id.to_owned(),
            load_state: "loaded".to_owned(),
            active_state: state.to_owned(),
            stops: names(links[0]),
            starts: names(links[1]),
            conflicts: names(links[2]),
            ..Unit::default()
        }
    }

    fn along(verb: Verb, name: &str) -> Vec<String> {
        let units = [
            unit("data.mount", "active", [&["postgres.service", "idle.service"], &[], &[]]),
            unit("postgres.service", "active", [&["app.service"], &["data.mount"], &[]]),
            unit(
                "app.service",
                "active",
                [&["data.mount"], &["db.service", "log.service"], &["old.service"]],
            ),
            unit("log.service", "inactive", [&[], &["gone.service"], &["old.service"]]),
            unit("old.service", "active", [&["older.service"], &[], &[]]),
            unit("older.service", "activating", [&[], &[], &[]]),
            unit("idle.service", "inactive", [&["app.service"], &[], &[]]),
            Unit { load_state: "not-found".to_owned(), ..unit("gone.service", "inactive", [&[], &[], &[]]) },
        ];
        let look = async |name: &str| {
            let name = if name == "db.service" { "postgres.service" } else { name };
            units.iter().find(|unit| unit.id == name).cloned().ok_or_else(|| format!("{name}?"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(async { of(verb, &look(name).await.unwrap(), look).await }).unwrap();
        found.into_iter().map(|(way, unit)| format!("{way} {}", unit.id)).collect()
    }

    #[test]
    fn what_goes_down_or_comes_up_with_a_unit_is_found_however_far_away() {
        assert_eq!(along(Verb::Stop, "data.mount"), ["stops postgres.service", "stops app.service"]);
        assert_eq!(
            along(Verb::Start, "app.service"),
            ["starts log.service", "stops old.service", "stops older.service"]
        );
        assert_eq!(
            along(Verb::Restart, "postgres.service"),
            ["stops app.service", "stops data.mount"],
            "and what runs is not started"
        );
        assert_eq!(along(Verb::Reload, "data.mount"), [""; 0]);
    }
}
