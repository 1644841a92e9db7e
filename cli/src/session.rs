//! The session that `fettle login` got: a bearer token in a file that only its owner reads.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use serde::{Deserialize, Serialize};

use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;

/// A bearer token, for whom and until when.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The controller's address; a session is never sent to another.
    pub controller: String,
    /// Whose it is.
    pub person: String,
    /// The token. Never printed.
    pub token: String,
    /// Milliseconds since the Unix epoch.
    pub expires_at: i64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("controller", &self.controller).field("person", &self.person).finish()
    }
}

impl Session {
    /// The session kept for this controller.
    pub fn load(context: &Context) -> Result<Session> {
        let path = context.session_file()?;
        let none =
            |why: &str| Error::new(Exit::SignIn, "you are not signed in").why(why).next("fettle login");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(none("there is no session yet"));
            }
            Err(error) => {
                return Err(Error::new(Exit::SignIn, "failed to read the session")
                    .at(path.display())
                    .because(&error));
            }
        };
        let session: Session = serde_json::from_str(&text).map_err(|error| {
            Error::new(Exit::SignIn, "failed to read the session")
                .at(path.display())
                .because(&error)
                .next("fettle login")
        })?;
        if session.controller != context.controller()? {
            return Err(none(&format!("the session is for {}", session.controller)));
        }
        if context.person().is_ok_and(|person| person != session.person) {
            return Err(none(&format!("the session belongs to {}", session.person)));
        }
        Ok(session)
    }

    /// Keeps it, readable by its owner alone; replaces the one before in one step.
    pub fn save(&self, context: &Context) -> Result<()> {
        let path = context.session_file()?;
        let failed = |error: std::io::Error| {
            Error::new(Exit::Failed, "failed to keep the session").at(path.display()).because(&error)
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| std::fs::rename(&fresh, &path))
            .map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Global;

    #[test]
    fn a_session_is_private_and_never_sent_to_another_controller() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, "controller: https://a:1\n").expect("the file is written");
        let global = Global { config: Some(file), ..Global::default() };
        let context = Context::new(&global).expect("it is read");

        let error = Session::load(&context).expect_err("nobody signed in");
        assert_eq!(error.exit(), Exit::SignIn);

        let session = Session {
            controller: "https://a:1".into(),
            person: "ana".into(),
            token: "t".into(),
            expires_at: 1,
        };
        session.save(&context).expect("it is kept");
        let kept = context.session_file().expect("a place");
        assert_eq!(std::fs::metadata(&kept).expect("it exists").permissions().mode() & 0o777, 0o600);
        assert_eq!(Session::load(&context).expect("it is there").token, "t");
        assert!(!format!("{session:?}").contains("token"));

        let other =
            Context::new(&Global { controller: Some("https://b:1".into()), ..global }).expect("it is read");
        assert_eq!(Session::load(&other).expect_err("another controller").exit(), Exit::SignIn);
    }
}
