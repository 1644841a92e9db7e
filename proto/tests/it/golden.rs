//! The formats do not drift: bytes, digest and signature of each are pinned in `golden/`.
//!
//! `UPDATE=1 cargo test -p fettle-proto golden` rewrites the files. Doing so changes what hosts in the field accept.

use std::path::{Path, PathBuf};

use fettle_proto::signed::{self, Envelope, certificate, digest, sign};

use crate::world;

pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

pub(crate) fn pinned(name: &str, found: &[u8]) {
    let path = file(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("makes golden/");
        std::fs::write(&path, found).expect("writes the golden file");
        return;
    }
    let expected = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        String::from_utf8_lossy(found),
        String::from_utf8_lossy(&expected),
        "{} has changed: hosts in the field would refuse it",
        path.display()
    );
}

#[test]
fn the_golden_bytes_digests_and_signatures_are_what_we_make() {
    for (name, bytes, tag, signer) in world::formats() {
        pinned(&format!("{name}.json"), &bytes);
        if let Some(tag) = tag {
            pinned(&format!("{name}.digest"), format!("{}\n", digest(tag, &bytes)).as_bytes());
        }
        if let Some((namespace, by)) = signer {
            let signed = sign(&world::key_of(by), namespace, &bytes).expect("signs");
            let Envelope::SshSig(armored) = &signed.envelope else { panic!("an SSHSIG") };
            pinned(&format!("{name}.sshsig"), armored.as_bytes());
        }
    }
}

#[test]
fn golden_files_of_certificates_and_rosters_are_what_we_make() {
    let certificate = world::certify(&world::certificate("dan", "cleo"), "cleo");
    let file = certificate::encode_file(std::slice::from_ref(&certificate));
    pinned("disk-full.cert", &file);
    assert_eq!(certificate::decode_file(&file), Ok(vec![certificate]));

    let roster =
        sign(&world::key_of("root"), signed::Namespace::Roster, &world::roster().encode()).expect("signs");
    let file = certificate::encode_signed_file(&roster).expect("an SSHSIG");
    pinned("roster-file.json", &file);
    assert_eq!(certificate::decode_signed_file(&file), Ok(roster));
}

#[test]
fn what_goes_on_from_a_run_is_read_from_its_golden_bytes_as_it_was_meant() {
    let golden = |name: &str| std::fs::read(file(name)).expect("a golden file");
    let start = golden("start-follow-up.json");
    let read = signed::Start::decode(&start).expect("a start");
    assert!(read.of.is_some());
    assert_eq!(read.encode(), start);
    for name in ["plan-retry.json", "plan-undo.json"] {
        let plan = golden(name);
        let read = signed::plan::decode(&plan).expect("a plan");
        assert!(read.of.is_some() && read.steps[0].done_in.is_some(), "{name}");
        assert_eq!(signed::plan::encode(&read), plan, "{name}");
    }
    let request = golden("request-again.json");
    let read = signed::Request::decode(&request).expect("a request");
    assert_eq!(read.again.as_ref().map(|again| again.attempt), Some(1));
    assert_eq!(read.encode(), request);
}
