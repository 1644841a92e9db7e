//! The caller's key: a private key file, or one that ssh-agent holds.

use std::path::Path;

use fettle_proto::signed::{Namespace, PrivateKey, PublicKey, Signed, envelope, sign};

use super::ssh_agent::SshAgent;
use super::terminal;
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;

/// The largest key file that is read, bytes.
const LARGEST: u64 = 64 * 1024;

/// Something that signs.
#[derive(Debug)]
pub enum Signer {
    /// A private key, open.
    Key(Box<PrivateKey>),
    /// A key that ssh-agent holds.
    Agent(SshAgent, PublicKey),
}

impl Signer {
    /// Its public key.
    pub fn public(&self) -> PublicKey {
        match self {
            Signer::Key(key) => key.public(),
            Signer::Agent(_, key) => key.clone(),
        }
    }

    /// Signs bytes.
    pub fn sign(&self, namespace: Namespace, bytes: &[u8]) -> Result<Signed> {
        let failed = || Error::new(Exit::Failed, "failed to sign").at(self.public().fingerprint());
        match self {
            Signer::Key(key) => sign(key, namespace, bytes).map_err(|error| failed().because(&error)),
            Signer::Agent(agent, key) => {
                let data =
                    envelope::to_be_signed(namespace, bytes).map_err(|error| failed().because(&error))?;
                let blob = agent
                    .sign(key, &data)
                    .map_err(|error| failed().why("ssh-agent did not sign").because(&error))?;
                envelope::assemble(key, namespace, bytes, &blob).map_err(|error| failed().because(&error))
            }
        }
    }
}

/// Which keys will do.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// Any that is accepted at all; with several in ssh-agent the caller must choose.
    Any,
    /// One of these: the keys that the roster knows the person by.
    OneOf(&'a [PublicKey]),
}

impl Wanted<'_> {
    fn takes(self, key: &PublicKey) -> bool {
        match self {
            Wanted::Any => key.allowed().is_ok(),
            Wanted::OneOf(keys) => keys.contains(key) && key.allowed().is_ok(),
        }
    }
}

/// Finds the caller's key: the configured file (a public key names one that ssh-agent holds), else ssh-agent.
pub fn signer(context: &Context, wanted: Wanted<'_>) -> Result<Signer> {
    let agent = SshAgent::from_env();
    match context.key() {
        Some(file) => from_file(file, agent, wanted),
        None => from_agent(agent, wanted),
    }
}

fn from_file(file: &Path, agent: Option<SshAgent>, wanted: Wanted<'_>) -> Result<Signer> {
    let text = read(file)?;
    let signer = match PublicKey::parse(&text) {
        Ok(public) => Signer::Agent(holding(agent, &public, file)?, public),
        Err(_) => from_private(file, &text, agent)?,
    };
    let public = signer.public();
    public
        .allowed()
        .map_err(|refusal| Error::usage("this key may not sign").at(file.display()).because(&refusal))?;
    if !wanted.takes(&public) {
        return Err(Error::new(Exit::NotAllowed, "this key is not the one the roster knows you by")
            .at(file.display())
            .why(format!("it is {}", public.fingerprint()))
            .fix("give the right one with --key, or say who you are with --person")
            .next("fettle roster show"));
    }
    Ok(signer)
}

fn from_private(file: &Path, text: &str, agent: Option<SshAgent>) -> Result<Signer> {
    let key = PrivateKey::parse(text).map_err(|error| {
        Error::usage("failed to read the private key")
            .at(file.display())
            .because(&error)
            .fix("make one with: ssh-keygen -t ed25519")
    })?;
    if !key.is_encrypted() {
        return Ok(Signer::Key(Box::new(key)));
    }
    if let Some(agent) = agent {
        let public = key.public();
        if agent.identities().is_ok_and(|held| held.contains(&public)) {
            return Ok(Signer::Agent(agent, public));
        }
    }
    open(file, &key).map(|key| Signer::Key(Box::new(key)))
}

/// Asks for the passphrase, three times at most.
fn open(file: &Path, key: &PrivateKey) -> Result<PrivateKey> {
    let locked = || Error::new(Exit::SignIn, "the key needs its passphrase").at(file.display());
    if !terminal::is_there() {
        return Err(locked()
            .why("there is no terminal to ask on")
            .fix(format!("add it to ssh-agent first: ssh-add {}", file.display())));
    }
    for _ in 0..3 {
        let question = format!("Passphrase of {}", crate::output::visible(&file.display().to_string()));
        match terminal::passphrase(&question) {
            Ok(Some(passphrase)) => match key.decrypt(&passphrase) {
                Ok(open) => return Ok(open),
                Err(error) => crate::output::talk(&error.to_string()),
            },
            Ok(None) => return Err(locked().why("it was not given")),
            Err(error) => return Err(locked().because(&error)),
        }
    }
    Err(locked().why("three attempts were wrong"))
}

fn read(file: &Path) -> Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(LARGEST).read_to_string(&mut text))
        .map_err(|error| Error::usage("failed to read the key").at(file.display()).because(&error))?;
    Ok(text)
}

fn holding(agent: Option<SshAgent>, public: &PublicKey, file: &Path) -> Result<SshAgent> {
    let error = || {
        Error::new(Exit::SignIn, "this is a public key, and ssh-agent does not hold its private half")
            .at(file.display())
            .fix("add the private key with ssh-add, or give its file with --key")
    };
    let agent = agent.ok_or_else(|| error().why("SSH_AUTH_SOCK is not set"))?;
    match agent.identities() {
        Ok(held) if held.contains(public) => Ok(agent),
        Ok(_) => Err(error()),
        Err(cause) => Err(error().because(&cause)),
    }
}

fn from_agent(agent: Option<SshAgent>, wanted: Wanted<'_>) -> Result<Signer> {
    let fix =
        "give a private key file with --key (or `key:` in the configuration), or add yours with ssh-add";
    let Some(agent) = agent else {
        return Err(Error::new(Exit::SignIn, "there is no key to sign with")
            .why("no key file is configured and SSH_AUTH_SOCK is not set")
            .fix(fix));
    };
    let held = agent.identities().map_err(|error| {
        Error::new(Exit::SignIn, "failed to ask ssh-agent for its keys").because(&error).fix(fix)
    })?;
    let mut fitting = held.iter().filter(|key| wanted.takes(key));
    match (fitting.next(), fitting.next(), wanted) {
        (Some(key), _, Wanted::OneOf(_)) | (Some(key), None, Wanted::Any) => {
            Ok(Signer::Agent(agent, key.clone()))
        }
        (Some(_), Some(_), Wanted::Any) => {
            let mut error = Error::usage("ssh-agent holds several keys, and it is not known which is yours");
            for key in held.iter().filter(|key| wanted.takes(key)) {
                error = error.why(format!("{} {}", key.fingerprint(), key.algorithm()));
            }
            Err(error.fix("name one by its public key file: --key ~/.ssh/id_ed25519.pub"))
        }
        (None, _, _) => Err(Error::new(Exit::SignIn, "ssh-agent holds no key that will do")
            .why(format!(
                "it holds {} keys; ssh-ed25519 and ecdsa-sha2-nistp256 keys of yours count",
                held.len()
            ))
            .fix(fix)),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use fettle_proto::signed::verify;

    use super::*;
    use crate::args::Global;

    /// A real ssh-agent of the test's own.
    struct Running {
        child: Child,
        socket: std::path::PathBuf,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    const NEEDED: &str = "the Debian package `openssh-client` is needed";

    #[expect(clippy::disallowed_methods, reason = "the real ssh-agent")]
    fn ssh_agent(dir: &Path) -> Running {
        let socket = dir.join("agent.sock");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(NEEDED);
        let running = Running { child, socket };
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match SshAgent::at(&running.socket).identities() {
                Ok(_) => return running,
                Err(error) => assert!(Instant::now() < until, "ssh-agent does not answer: {error}"),
            }
            std::thread::yield_now();
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the real ssh-keygen and ssh-add")]
    fn run(program: &str, socket: &Path, args: &[&str]) {
        let status = Command::new(program)
            .args(args)
            .env("SSH_AUTH_SOCK", socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect(NEEDED);
        assert!(status.success(), "{program} {args:?}");
    }

    fn make_key(dir: &Path, name: &str, algorithm: &str, passphrase: &str) -> String {
        let path = dir.join(name).display().to_string();
        run("ssh-keygen", dir, &["-q", "-t", algorithm, "-N", passphrase, "-f", &path]);
        path
    }

    #[test]
    fn a_key_in_ssh_agent_signs_as_one_in_a_file_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let running = ssh_agent(dir.path());
        for algorithm in ["ed25519", "ecdsa"] {
            let path = make_key(dir.path(), algorithm, algorithm, "");
            run("ssh-add", &running.socket, &["-q", &path]);
            let agent = SshAgent::at(&running.socket);
            let public = PublicKey::parse(&std::fs::read_to_string(format!("{path}.pub")).expect("reads"))
                .expect("a public key");
            let signer =
                from_agent(Some(agent), Wanted::OneOf(std::slice::from_ref(&public))).expect("a signer");
            let signed = signer.sign(Namespace::Approval, b"bytes").expect("signs");
            verify(&signed, Namespace::Approval, &[public]).expect("verifies");
        }
        let several = from_agent(Some(SshAgent::at(&running.socket)), Wanted::Any).expect_err("which?");
        assert!(several.to_string().contains("several keys"), "{several}");
    }

    #[test]
    fn an_rsa_key_in_ssh_agent_is_passed_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let running = ssh_agent(dir.path());
        let path = make_key(dir.path(), "rsa", "rsa", "");
        run("ssh-add", &running.socket, &["-q", &path]);
        let error = from_agent(Some(SshAgent::at(&running.socket)), Wanted::Any).expect_err("none will do");
        assert_eq!(error.exit(), Exit::SignIn);
    }

    #[test]
    fn a_public_key_file_names_a_key_that_ssh_agent_holds() {
        let dir = tempfile::tempdir().expect("a directory");
        let running = ssh_agent(dir.path());
        let path = make_key(dir.path(), "id", "ed25519", "");
        let public = std::path::PathBuf::from(format!("{path}.pub"));
        let agent = || Some(SshAgent::at(&running.socket));
        from_file(&public, agent(), Wanted::Any).expect_err("it is not there yet");
        run("ssh-add", &running.socket, &["-q", &path]);
        let signer = from_file(&public, agent(), Wanted::Any).expect("it is there");
        assert!(matches!(signer, Signer::Agent(..)));
    }

    #[test]
    fn an_encrypted_key_that_ssh_agent_holds_needs_no_passphrase_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let running = ssh_agent(dir.path());
        let path = make_key(dir.path(), "locked", "ed25519", "secret");
        let text = std::fs::read_to_string(&path).expect("reads");
        let open = PrivateKey::parse(&text).and_then(|key| key.decrypt("secret")).expect("opens");
        let copy = dir.path().join("open");
        std::fs::write(&copy, open.to_openssh().expect("a key")).expect("writes");
        std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
        run("ssh-add", &running.socket, &["-q", &copy.display().to_string()]);
        let signer = from_file(Path::new(&path), Some(SshAgent::at(&running.socket)), Wanted::Any);
        assert!(matches!(signer.expect("a signer"), Signer::Agent(..)));
    }

    #[test]
    fn a_key_that_is_not_the_persons_own_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let mine = make_key(dir.path(), "mine", "ed25519", "");
        let theirs = PrivateKey::from_seed([7; 32], "").public();
        let context =
            Context::new(&Global { key: Some(mine.into()), ..Global::default() }).expect("a context");
        signer(&context, Wanted::Any).expect("any will do");
        let error = signer(&context, Wanted::OneOf(&[theirs])).expect_err("not mine");
        assert_eq!(error.exit(), Exit::NotAllowed);
    }
}
