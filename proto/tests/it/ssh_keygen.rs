//! The other implementation agrees: `ssh-keygen -Y` verifies what we sign, and we verify what it signs.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use fettle_proto::signed::{Envelope, Namespace, PrivateKey, PublicKey, Signed, sign, verify};

use crate::world;

const ALL: [Namespace; 5] =
    [Namespace::Roster, Namespace::Runbook, Namespace::Login, Namespace::Start, Namespace::Approval];

/// Runs `ssh-keygen` with this input; `Err` is what it said on stderr.
#[expect(clippy::disallowed_methods, reason = "the real ssh-keygen")]
fn ssh_keygen(args: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Command::new("ssh-keygen")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`ssh-keygen` is needed: install the Debian package `openssh-client`");
    child.stdin.take().expect("its stdin").write_all(input).expect("writes");
    let output = child.wait_with_output().expect("ends");
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Writes a private key where `ssh-keygen` will take it.
fn key_file(dir: &Path, name: &str, key: &PrivateKey) -> std::path::PathBuf {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = dir.join(name);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&path).expect("opens");
    file.write_all(key.to_openssh().expect("a key").as_bytes()).expect("writes");
    path
}

fn generated(dir: &Path, algorithm: &str, passphrase: &str) -> (std::path::PathBuf, PrivateKey) {
    let path = dir.join(format!("id_{algorithm}_{}", passphrase.len()));
    ssh_keygen(&["-q", "-t", algorithm, "-b", "256", "-N", passphrase, "-f", text(&path)], b"")
        .expect("makes a key");
    let key = PrivateKey::parse(&std::fs::read_to_string(&path).expect("reads")).expect("a private key");
    (path, key)
}

fn both_ways(dir: &Path, path: &Path, key: &PrivateKey, namespace: Namespace, bytes: &[u8]) {
    let public = key.public();
    let allowed = dir.join("allowed_signers");
    std::fs::write(&allowed, format!("someone {public}\n")).expect("writes");

    // Ours, checked by theirs.
    let ours = sign(key, namespace, bytes).expect("signs");
    let Envelope::SshSig(armored) = &ours.envelope else { panic!("an SSHSIG") };
    let signature = dir.join("ours.sig");
    std::fs::write(&signature, armored).expect("writes");
    let check = |namespace: &str, bytes: &[u8]| {
        let args =
            ["-Y", "verify", "-f", text(&allowed), "-I", "someone", "-n", namespace, "-s", text(&signature)];
        ssh_keygen(&args, bytes)
    };
    check(namespace.as_str(), bytes).expect("ssh-keygen verifies our signature");
    let mut changed = bytes.to_vec();
    changed[0] ^= 1;
    check(namespace.as_str(), &changed).expect_err("ssh-keygen refuses changed bytes");
    check("file", bytes).expect_err("ssh-keygen refuses another namespace");

    // Theirs, checked by ours.
    let theirs = ssh_keygen(&["-q", "-Y", "sign", "-f", text(path), "-n", namespace.as_str()], bytes)
        .expect("ssh-keygen signs");
    let theirs = Signed {
        bytes: bytes.to_vec(),
        envelope: Envelope::SshSig(String::from_utf8(theirs).expect("armor is text")),
    };
    assert_eq!(verify(&theirs, namespace, std::slice::from_ref(&public)).expect("we verify theirs"), &public);
    for other in ALL.into_iter().filter(|other| *other != namespace) {
        verify(&theirs, other, std::slice::from_ref(&public)).expect_err("another namespace is refused");
    }
    let changed = Signed { bytes: changed, ..theirs };
    verify(&changed, namespace, std::slice::from_ref(&public)).expect_err("changed bytes are refused");
}

#[test]
fn every_format_signs_and_verifies_both_ways_with_ssh_keygen() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, bytes, _, signer) in world::formats() {
        let Some((namespace, by)) = signer else { continue };
        let key = world::key_of(by);
        let path = key_file(dir.path(), name, &key);
        both_ways(dir.path(), &path, &key, namespace, &bytes);
    }
}

#[test]
fn keys_of_both_accepted_algorithms_work_both_ways() {
    let dir = tempfile::tempdir().expect("a directory");
    for algorithm in ["ed25519", "ecdsa"] {
        let (path, key) = generated(dir.path(), algorithm, "");
        both_ways(dir.path(), &path, &key, Namespace::Approval, b"{\"fettle\":\"approval/1\"}");
    }
}

#[test]
fn a_key_with_a_passphrase_opens_with_it_and_with_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, key) = generated(dir.path(), "ed25519", "correct horse");
    assert!(key.is_encrypted());
    key.decrypt("wrong").expect_err("the passphrase is wrong");
    let open = key.decrypt("correct horse").expect("opens");
    let signed = sign(&open, Namespace::Login, b"x").expect("signs");
    verify(&signed, Namespace::Login, &[key.public()]).expect("verifies");
}

#[test]
fn rsa_keys_are_refused_weak_ones_as_weak() {
    let dir = tempfile::tempdir().expect("a directory");
    for (bits, code) in [("2048", "key-weak"), ("3072", "key-not-allowed")] {
        let path = dir.path().join(bits);
        ssh_keygen(&["-q", "-t", "rsa", "-b", bits, "-N", "", "-f", text(&path)], b"").expect("makes a key");
        let line = std::fs::read_to_string(path.with_extension("pub")).expect("reads");
        let public = PublicKey::parse(&line).expect("a public key");
        assert_eq!(public.allowed().expect_err("refused").code.as_str(), code);

        let armored = ssh_keygen(&["-q", "-Y", "sign", "-f", text(&path), "-n", "approval@fettle"], b"x")
            .expect("signs");
        let signed = Signed {
            bytes: b"x".to_vec(),
            envelope: Envelope::SshSig(String::from_utf8(armored).expect("text")),
        };
        let refusal = verify(&signed, Namespace::Approval, &[public]).expect_err("refused");
        assert_eq!(refusal.code.as_str(), code);
    }
}
