//! Landlock: a step reads, and writes nowhere but to its own scratch directory; it connects to the ports it names, and
//! signals nobody outside.
//!
//! Landlock knows what is allowed and nothing else. To deny a file below an allowed directory, everything around it is
//! allowed instead. That is done where mounts cannot hide it: where the agent is not root.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope,
};

use super::{Order, mounts, secrets};

/// The newest there is; an older kernel takes what it knows of it.
const NEWEST: ABI = ABI::V9;

/// Confines this process and all its children.
pub(super) fn confine(order: &Order) -> Result<(), RulesetError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let mut rules = match order.uid {
        // Mounts hide what is secret.
        Some(_) => allow(rules, Path::new("/"), AccessFs::from_read(NEWEST))?,
        None => {
            let mut secret = secrets::present(&order.state, false);
            // There the kernel itself knows who may; and processes come and go, which no list could follow.
            secret.retain(|path| !path.starts_with("/proc") && !path.starts_with("/sys"));
            around(rules, &secret)?
        }
    };
    for device in mounts::SINKS {
        rules = allow(rules, Path::new(device), AccessFs::from_file(NEWEST) & !AccessFs::Execute)?;
    }
    if order.uid.is_some() {
        let all = AccessFs::from_all(NEWEST) & !AccessFs::Execute;
        rules = allow(rules, Path::new(mounts::SCRATCH), all)?;
    }
    for port in &order.allowed.connect {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    rules.restrict_self()?;
    Ok(())
}

/// Allows something below a path; one that cannot be opened need not be allowed.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(fd) => rules.add_rule(PathBeneath::new(fd, access)),
        Err(_) => Ok(rules),
    }
}

/// Allows to read everything but what is secret. Names in directories can be read everywhere, as far as the user may.
fn around(rules: RulesetCreated, secret: &BTreeSet<PathBuf>) -> Result<RulesetCreated, RulesetError> {
    let mut rules = allow(rules, Path::new("/"), AccessFs::ReadDir.into())?;
    let mut open = vec![PathBuf::from("/")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            // What a link leads to is allowed, or not, by its own name.
            if kind.is_symlink() || secret.contains(&path) {
                continue;
            }
            if kind.is_dir() && secret.iter().any(|secret| secret.starts_with(&path)) {
                open.push(path);
                continue;
            }
            let read = AccessFs::from_read(NEWEST);
            let access = if kind.is_dir() { read } else { read & AccessFs::from_file(NEWEST) };
            rules = allow(rules, &path, access)?;
        }
    }
    Ok(rules)
}
