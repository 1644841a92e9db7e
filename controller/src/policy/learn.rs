//! The files of Prometheus from which a source's delay is learnt. They are other people's: one that is wrong keeps nobody from
//! anything but better clocks, so it is no problem of the policy.

use std::fs;
use std::path::{Path, PathBuf};

use fettle_runbooks::detect::{Files, Monitoring, Sources, Wrong};

/// The largest file that is read, bytes.
const LARGEST: u64 = 8 * 1024 * 1024;

/// Which files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learn {
    /// `prometheus.yml`, whose `rule_files` are followed.
    pub prometheus: Option<PathBuf>,
    /// More rule files, as patterns.
    pub rules: Vec<PathBuf>,
}

impl Learn {
    /// Reads them all, or says everything that is wrong.
    pub fn read(&self) -> Result<Monitoring, Vec<Wrong>> {
        let sources =
            Sources { prometheus: self.prometheus.clone(), rules: self.rules.clone(), ..Sources::default() };
        Monitoring::read(&sources, &Disk)
    }

    /// The files that answer to these patterns now; one that cannot be looked for answers to none.
    pub fn matching<'p>(patterns: impl Iterator<Item = &'p Path>) -> Vec<PathBuf> {
        patterns.flat_map(|pattern| Disk.matching(pattern).unwrap_or_default()).collect()
    }
}

struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("cannot be read: {error}");
        if fs::metadata(path).map_err(failed)?.len() > LARGEST {
            return Err(format!("is longer than {LARGEST} bytes"));
        }
        fs::read_to_string(path).map_err(failed)
    }

    fn matching(&self, pattern: &Path) -> Result<Vec<PathBuf>, String> {
        let text = pattern.to_str().ok_or("is not UTF-8")?;
        let found = ::glob::glob(text).map_err(|error| format!("is no pattern of file names: {error}"))?;
        found.map(|path| path.map_err(|error| format!("cannot be looked for: {error}"))).collect()
    }
}
