//! `file("/run/app.pid")`: whether it is there, and what can be said without opening it. A link stands for its target.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use fettle_runbooks::value::Value;

use super::{Reading, absolute, int, record};
use crate::works::clock::wall_ms;

pub(super) fn read(path: &str) -> Reading {
    absolute(path)?;
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
    // A file from the future is as young as can be.
    let age = (wall_ms() / 1000).saturating_sub(meta.mtime()).max(0);
    Ok(record([
        ("exists", Value::Bool(true)),
        ("size", int(meta.len())),
        ("mode", Value::String(format!("{:04o}", meta.mode() & 0o7777))),
        ("age_seconds", Value::Int(age)),
        ("is_dir", Value::Bool(meta.is_dir())),
        ("owner_uid", int(meta.uid().into())),
    ]))
}
