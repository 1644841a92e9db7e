//! `file("/run/app.pid")`: whether it is there, and what can be said without opening it. A link stands for its target.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use fettle_runbooks::value::Value;

use super::{Reading, int, record};

pub(super) fn read(path: &str) -> Reading {
    if !path.starts_with('/') {
        return Err("not an absolute path".into());
    }
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(record([
                ("exists", Value::Bool(false)),
                ("size", Value::Null),
                ("mode", Value::Null),
                ("age_seconds", Value::Null),
                ("is_dir", Value::Null),
                ("owner_uid", Value::Null),
            ]));
        }
        Err(error) => return Err(error.to_string()),
    };
    let changed = meta.modified().map_err(|error| error.to_string())?;
    // A file from the future is as young as can be.
    let age = SystemTime::now().duration_since(changed).unwrap_or_default();
    Ok(record([
        ("exists", Value::Bool(true)),
        ("size", int(meta.len())),
        ("mode", Value::String(format!("{:04o}", meta.mode() & 0o7777))),
        ("age_seconds", int(age.as_secs())),
        ("is_dir", Value::Bool(meta.is_dir())),
        ("owner_uid", int(meta.uid().into())),
    ]))
}
