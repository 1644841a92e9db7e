//! The folder of runbooks, and the roster that says which of them count as certified.
//!
//! A runbook's name is its path in the folder: `host/disk-full.yaml` holds `host/disk-full`, its reviewers' certificates
//! are in `host/disk-full.cert`. Both are looked at again every second. A file that has become bad is refused, with its
//! problems, and what was good before stays in force; a file that has gone goes. A roster that has become bad, or is
//! older than the one in force, is refused likewise.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fettle_proto::signed::{Roster, Signed, Trust, certificate};
use fettle_proto::v1;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::coordinator::{Handle, RosterInForce};
use crate::trigger::{Entry, Library};
use crate::world::World;

/// How often the folder and the roster are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// The largest file that is read, bytes.
const LARGEST: u64 = 1024 * 1024;
/// Folders within folders.
const DEEPEST: usize = 8;
/// Files that are looked at; a folder that holds more is not a library.
const MOST: usize = 10_000;
/// A roster that expires sooner than this is worth a warning.
const SOON: jiff::SignedDuration = jiff::SignedDuration::from_hours(14 * 24);

/// Where things are, and whom to believe.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder of runbooks.
    pub library: PathBuf,
    /// The signed roster.
    pub roster: PathBuf,
    /// Whose rosters count.
    pub trust: Trust,
}

/// What an operator should know of files that are not in force. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    /// What there is to know now.
    pub fn get(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, notices: Vec<String>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for notice in notices.iter().filter(|notice| !kept.contains(notice)) {
            tracing::warn!(%notice, "A file is not in force.");
        }
        *kept = notices;
    }
}

/// What is in force, and what is wrong with the files that are not.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The runbooks.
    pub library: Arc<Library>,
    /// The roster; none until a good one was found.
    pub roster: Option<Arc<RosterInForce>>,
    /// For people.
    pub notices: Vec<String>,
}

/// Reads everything once, keeping of `before` what has become bad.
pub fn load(places: &Places, before: &Loaded, now: Timestamp) -> Loaded {
    let mut notices = Vec::new();
    let roster = match read_roster(&places.roster, &places.trust, before.roster.as_deref()) {
        Ok(roster) => Some(Arc::new(roster)),
        Err(why) => {
            let kept = match &before.roster {
                Some(kept) => format!("version {} stays in force", kept.roster.version),
                None => "there is none in force: nobody can sign in".to_owned(),
            };
            notices.push(format!("roster {}: {why}; {kept}", places.roster.display()));
            before.roster.clone()
        }
    };
    if let Some(roster) = roster.as_deref().map(|it| &it.roster) {
        match roster.in_force(now) {
            Err(refusal) => notices.push(refusal.to_string()),
            Ok(()) if now + SOON >= roster.expires => {
                notices.push(format!("roster version {} expires at {}", roster.version, roster.expires));
            }
            Ok(()) => {}
        }
    }
    let library = read_library(&places.library, &before.library, roster.as_deref().map(|it| &it.roster), now);
    notices.extend(
        library
            .refused
            .keys()
            .map(|file| format!("runbook file {file} is refused; see `fettle runbook list`")),
    );
    Loaded { library: Arc::new(library), roster, notices }
}

/// Looks again and again and hands every change to the coordinator, until `stop`. `loaded` is in force already.
pub async fn watch(
    places: Places,
    mut loaded: Loaded,
    handle: Handle,
    notices: Notices,
    world: Arc<dyn World>,
    stop: CancellationToken,
) {
    let mut seen = None;
    let mut judged = world.now();
    notices.set(loaded.notices.clone());
    loop {
        let found = {
            let places = places.clone();
            tokio::task::spawn_blocking(move || look(&places)).await.ok()
        };
        let now = world.now();
        // Certificates stop counting when the roster expires, without any file changing.
        let stale = now.since(judged) >= Duration::from_secs(60);
        if found.is_some() && (found != seen || stale) {
            (seen, judged) = (found, now);
            let (reading, before) = (places.clone(), loaded.clone());
            let at = Timestamp::from_millisecond(now.0).unwrap_or_default();
            if let Ok(read) = tokio::task::spawn_blocking(move || load(&reading, &before, at)).await {
                let roster = |it: &Loaded| it.roster.as_deref().map(|it| it.signed.bytes.clone());
                if roster(&read) != roster(&loaded) {
                    tracing::info!(
                        version = read.roster.as_deref().map(|it| it.roster.version),
                        "Roster in force."
                    );
                    handle.set_roster(read.roster.clone()).await;
                }
                handle.set_library(Arc::clone(&read.library)).await;
                notices.set(read.notices.clone());
                loaded = read;
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}

/// What tells that a file changed.
type Look = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

fn look(places: &Places) -> Look {
    let (files, _) = files(&places.library);
    files
        .into_values()
        .flat_map(|path| [path.with_extension("cert"), path])
        .chain([places.roster.clone()])
        .filter_map(|path| {
            let metadata = fs::metadata(&path).ok()?;
            Some((path, (metadata.len(), metadata.modified().ok())))
        })
        .collect()
}

fn read_roster(path: &Path, trust: &Trust, before: Option<&RosterInForce>) -> Result<RosterInForce, String> {
    let bytes = read(path).map_err(|error| format!("it cannot be read: {error}"))?;
    let signed = certificate::decode_signed_file(&bytes).map_err(|error| error.to_string())?;
    let roster = Roster::trusted(&signed, trust).map_err(|refusal| refusal.to_string())?;
    if let Some(before) = before {
        roster.may_follow(before.roster.version).map_err(|refusal| refusal.to_string())?;
        if roster.version == before.roster.version && before.signed.bytes != signed.bytes {
            return Err(format!(
                "it differs from the roster in force but has the same version {}; count the version up",
                roster.version
            ));
        }
    }
    Ok(RosterInForce { signed: v1::Signed::from(signed), roster })
}

fn read_library(folder: &Path, before: &Library, roster: Option<&Roster>, now: Timestamp) -> Library {
    let (files, mut refused) = files(folder);
    let mut entries = BTreeMap::new();
    for (name, path) in files {
        let shown = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
        let kept = before.entries.get(&name);
        let (runbook, bytes) = match read_runbook(&name, &shown, &path) {
            Ok(read) => read,
            Err(problems) => {
                refused.insert(shown, problems);
                let Some(kept) = kept else { continue };
                (kept.runbook.clone(), kept.bytes.clone())
            }
        };
        let beside = path.with_extension("cert");
        let signed = match read_certificates(&beside) {
            Ok(signed) => signed,
            Err(why) => {
                let shown = beside.strip_prefix(folder).unwrap_or(&beside).display().to_string();
                refused.insert(shown, why);
                // Those before count only if they are of the same bytes; that is judged below.
                kept.map_or_else(Vec::new, |kept| {
                    kept.certificates.iter().cloned().filter_map(|it| Signed::try_from(it).ok()).collect()
                })
            }
        };
        let certified =
            roster.is_some_and(|roster| certificate::certified(&bytes, &signed, roster, now).is_ok());
        let certificates = signed.into_iter().map(v1::Signed::from).collect();
        entries.insert(name, Arc::new(Entry { runbook, bytes, certificates, certified }));
    }
    Library { entries, refused }
}

fn read_runbook(
    name: &str,
    shown: &str,
    path: &Path,
) -> Result<(fettle_runbooks::runbook::Runbook, Bytes), String> {
    let bytes = read(path).map_err(|error| format!("it cannot be read: {error}"))?;
    let read = fettle_runbooks::read(&bytes)
        .map_err(|problems| fettle_runbooks::problem::render(shown, &bytes, &problems, false))?;
    if read.runbook.name() != name {
        return Err(format!(
            "it says `runbook: {}`, but its place in the library makes it `{name}`; change one of them",
            read.runbook.name()
        ));
    }
    Ok((read.runbook, bytes.into()))
}

fn read_certificates(path: &Path) -> Result<Vec<Signed>, String> {
    match read(path) {
        Ok(bytes) => certificate::decode_file(&bytes).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Every runbook file by the name its place gives it, and what could not be listed. Names that begin with a dot are
/// skipped, and so are recorded tests (`NAME.test.yaml`).
fn files(folder: &Path) -> (BTreeMap<String, PathBuf>, BTreeMap<String, String>) {
    let (mut found, mut refused) = (BTreeMap::new(), BTreeMap::new());
    let mut folders = vec![(folder.to_path_buf(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                refused.insert(folder.display().to_string(), format!("it cannot be listed: {error}"));
                continue;
            }
        };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if name.starts_with('.') || found.len() >= MOST {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                if depth < DEEPEST {
                    folders.push((path, format!("{prefix}{name}/"), depth + 1));
                }
            } else if let Some(stem) = name.strip_suffix(".yaml").filter(|stem| !stem.ends_with(".test")) {
                found.insert(format!("{prefix}{stem}"), path);
            }
        }
    }
    (found, refused)
}
