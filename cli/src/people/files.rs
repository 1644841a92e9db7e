//! Files of what people sign.

use std::io::{Read as _, Write as _};
use std::path::Path;

use crate::error::{Error, Result};
use crate::exit::Exit;

/// The largest runbook that is read, bytes.
const LARGEST: u64 = 1024 * 1024;

/// The exact bytes of a runbook file.
pub(super) fn runbook(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| Error::usage("failed to read the runbook").at(path.display()).because(&error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::usage("the runbook is larger than 1 MiB").at(path.display()));
    }
    Ok(bytes)
}

/// Writes a file in one step: whoever reads it sees the old one or the new one.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension(format!("new.{}", std::process::id()));
    let write = || {
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(bytes)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(|error| {
        // It may not have been created; there is nothing to clean up then.
        let _ = std::fs::remove_file(&fresh);
        Error::new(Exit::Failed, "failed to write").at(path.display()).because(&error)
    })
}
