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

#[cfg(test)]
mod tests {
    use super::*;
    use fettle_proto::signed::{self, Certificate, Namespace, Person, PrivateKey, Scope};

    const GOOD: &str = "fettle: 1\nrunbook: host/look\ntitle: Look\nowner: core\ndescription: Looks.\ndiagnose:\n  - id: up\n    run: [uptime]\n";

    struct Folder {
        dir: tempfile::TempDir,
        root: PrivateKey,
        reviewer: PrivateKey,
        loaded: Loaded,
    }

    impl Folder {
        fn new() -> Folder {
            let key = |seed| PrivateKey::from_seed([seed; 32], "test");
            let dir = tempfile::tempdir().expect("a temporary directory");
            fs::create_dir_all(dir.path().join("library/host")).expect("made");
            let folder = Folder { dir, root: key(1), reviewer: key(2), loaded: Loaded::default() };
            folder.roster(1);
            folder
        }

        fn roster(&self, version: u64) {
            let roster = Roster {
                version,
                expires: Timestamp::from_second(2_000_000_000).expect("a time"),
                persons: vec![Person {
                    name: "rosa".to_owned(),
                    keys: vec![self.reviewer.public()],
                    groups: Default::default(),
                    scopes: [Scope::Review].into(),
                }],
                rules: Vec::new(),
                reviewers_needed: 1,
            };
            let signed = signed::sign(&self.root, Namespace::Roster, &roster.encode()).expect("signed");
            let bytes = certificate::encode_signed_file(&signed).expect("an SSHSIG");
            fs::write(self.dir.path().join("roster.json"), bytes).expect("written");
        }

        fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
            fs::write(self.dir.path().join("library").join(name), bytes).expect("written");
        }

        fn certify(&self, name: &str, runbook: &[u8]) {
            let certificate = Certificate {
                runbook: "host/look".to_owned(),
                runbook_digest: fettle_runbooks::id::Digest::of("runbook", 1, runbook),
                author: "ben".to_owned(),
                reviewer: "rosa".to_owned(),
                at: now(),
            };
            let signed =
                signed::sign(&self.reviewer, Namespace::Runbook, &certificate.encode()).expect("signed");
            self.write(name, certificate::encode_file(&[signed]));
        }

        fn load(&mut self) -> &Loaded {
            let places = Places {
                library: self.dir.path().join("library"),
                roster: self.dir.path().join("roster.json"),
                trust: Trust { ca_der: Vec::new(), roots: vec![self.root.public()] },
            };
            self.loaded = load(&places, &self.loaded, now());
            &self.loaded
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a time")
    }

    #[test]
    fn a_runbook_is_certified_by_the_file_beside_it_for_exactly_its_bytes() {
        let mut folder = Folder::new();
        folder.write("host/look.yaml", GOOD);
        assert!(!folder.load().library.entries["host/look"].certified);
        folder.certify("host/look.cert", GOOD.as_bytes());
        assert!(folder.load().library.entries["host/look"].certified);
        folder.write("host/look.yaml", format!("{GOOD}# changed\n"));
        assert!(!folder.load().library.entries["host/look"].certified);
    }

    #[test]
    fn a_file_that_became_bad_is_refused_and_the_good_one_kept() {
        let mut folder = Folder::new();
        folder.write("host/look.yaml", GOOD);
        folder.certify("host/look.cert", GOOD.as_bytes());
        folder.load();
        folder.write("host/look.yaml", b"\xff\xfe not a runbook");
        let loaded = folder.load();
        assert_eq!(loaded.library.entries["host/look"].bytes, GOOD.as_bytes());
        assert!(loaded.library.entries["host/look"].certified);
        assert!(loaded.library.refused.contains_key("host/look.yaml"), "{:?}", loaded.library.refused);
        assert_eq!(loaded.notices.len(), 1, "{:?}", loaded.notices);
        fs::remove_file(folder.dir.path().join("library/host/look.yaml")).expect("removed");
        assert!(folder.load().library.entries.is_empty());
    }

    #[test]
    fn a_runbook_in_the_wrong_place_is_refused() {
        let mut folder = Folder::new();
        folder.write("look.yaml", GOOD);
        let loaded = folder.load();
        assert!(loaded.library.entries.is_empty());
        assert!(loaded.library.refused["look.yaml"].contains("its place in the library makes it `look`"));
    }

    #[test]
    fn a_roster_never_goes_back_and_a_bad_one_changes_nothing() {
        let mut folder = Folder::new();
        let version = |loaded: &Loaded| loaded.roster.as_ref().map(|it| it.roster.version);
        folder.roster(7);
        assert_eq!(version(folder.load()), Some(7));
        folder.roster(6);
        let loaded = folder.load();
        assert_eq!(version(loaded), Some(7));
        assert!(loaded.notices[0].contains("version 7 stays in force"), "{:?}", loaded.notices);
        fs::write(folder.dir.path().join("roster.json"), "{}").expect("written");
        assert_eq!(version(folder.load()), Some(7));
        folder.roster(8);
        assert_eq!(version(folder.load()), Some(8));
    }
}
