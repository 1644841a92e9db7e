//! `fettle runbook certify|verify`: the reviewer's signature over a runbook's exact bytes, in the file beside it.

use std::path::{Path, PathBuf};

use fettle_proto::refusal::Refusal;
use fettle_proto::signed::{
    Certificate, Certified, Namespace, Roster, Signed, Tag, certificate, certified, digest, words,
};
use serde_json::json;

use super::keys::{Wanted, signer};
use super::{files, gate, roster};
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{Tone, talk, visible};

/// `host/disk-full.cert` for `host/disk-full.yaml`.
pub fn beside(runbook: &Path) -> PathBuf {
    runbook.with_extension("cert")
}

pub(super) fn certify(context: &Context, file: &Path, author: &str) -> Result<Exit> {
    let reviewer = context.person()?;
    if !words::is_name(author) {
        return Err(Error::usage(format!("`{author}` cannot be a person's name")));
    }
    if author == reviewer {
        return Err(Error::new(Exit::NotAllowed, "an author cannot review their own runbook")
            .fix("let somebody else certify it"));
    }
    let bytes = files::runbook(file)?;
    let runbook = crate::commands::checked(&file.display().to_string(), &bytes)?;
    let certificate = Certificate {
        runbook: runbook.name().to_owned(),
        runbook_digest: digest(Tag::Runbook, &bytes),
        author: author.to_owned(),
        reviewer: reviewer.to_owned(),
        at: super::now(),
    };
    let signed = signer(context, Wanted::Any)?.sign(Namespace::Runbook, &certificate.encode())?;
    let path = beside(file);
    let all = with(&read_file(&path)?, signed, &certificate);
    files::replace(&path, &certificate::encode_file(&all))?;
    let data = json!({
        "runbook": certificate.runbook, "digest": certificate.runbook_digest.to_string(), "author": author,
        "reviewer": reviewer, "file": path.display().to_string(), "certificates": all.len(),
    });
    context.output.show(&data, || {
        format!(
            "certified {} as {reviewer}\n  digest  {}\n  file    {} ({} in it)",
            visible(&certificate.runbook),
            certificate.runbook_digest,
            visible(&path.display().to_string()),
            if all.len() == 1 { "1 certificate".to_owned() } else { format!("{} certificates", all.len()) }
        )
    })?;
    Ok(Exit::Done)
}

/// The certificates of these very bytes, this reviewer's replaced by the new one.
fn with(before: &[Signed], fresh: Signed, of: &Certificate) -> Vec<Signed> {
    let keep = |signed: &&Signed| {
        Certificate::decode(&signed.bytes)
            .is_ok_and(|other| other.runbook_digest == of.runbook_digest && other.reviewer != of.reviewer)
    };
    before.iter().filter(keep).cloned().chain([fresh]).collect()
}

fn read_file(path: &Path) -> Result<Vec<Signed>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Error::usage("failed to read the certificates").at(path.display()).because(&error));
        }
    };
    certificate::decode_file(&bytes).map_err(|error| {
        Error::usage("failed to read the certificates")
            .at(path.display())
            .because(&error)
            .fix("if the file is damaged, remove it and let the runbook be certified again")
    })
}

pub(super) async fn verify(context: &Context, file: &Path, roster_file: Option<&Path>) -> Result<Exit> {
    let bytes = files::runbook(file)?;
    let certificates = read_file(&beside(file))?;
    let roster = roster(context, roster_file).await?;
    let verdict = certified(&bytes, &certificates, &roster, super::now());
    let data = match &verdict {
        Ok(certified) => json!({
            "certified": true, "digest": certified.digest().to_string(), "author": certified.author(),
            "reviewers": certified.reviewers(), "roster_version": roster.version,
        }),
        Err(refusal) => json!({
            "certified": false, "digest": digest(Tag::Runbook, &bytes).to_string(), "code": refusal.code.as_str(),
            "reason": refusal.message, "roster_version": roster.version,
        }),
    };
    context.output.show(&data, || human(context, file, &roster, &verdict))?;
    Ok(if verdict.is_ok() { Exit::Done } else { Exit::Failed })
}

async fn roster(context: &Context, file: Option<&Path>) -> Result<Roster> {
    let signed = match file {
        Some(file) => roster::read_signed(file)?,
        None => roster::in_force(context).await?,
    };
    match context.trust() {
        Ok(trust) => gate::trusted_roster(Some(signed.into()), trust, super::now()),
        Err(_) => {
            talk(
                "warning: no trust bundle is configured, so it is not known whether a root key signed this roster",
            );
            Roster::decode(&signed.bytes)
                .map_err(|error| Error::usage("failed to read the roster").because(&error))
        }
    }
}

fn human(
    context: &Context,
    file: &Path,
    roster: &Roster,
    verdict: &std::result::Result<Certified, Refusal>,
) -> String {
    let out = &context.output;
    let file = visible(&file.display().to_string()).into_owned();
    match verdict {
        Ok(certified) => format!(
            "{file}: {}\n  author     {}\n  reviewers  {}\n  digest     {}\n  roster     version {}",
            out.paint(Tone::Good, "certified"),
            certified.author(),
            certified.reviewers().iter().cloned().collect::<Vec<_>>().join(", "),
            certified.digest(),
            roster.version,
        ),
        Err(refusal) => format!(
            "{file}: {}\n  why     {} ({})\n  so      every remediate step counts as critical\n  roster  version {}",
            out.paint(Tone::Bad, "not certified"),
            visible(&refusal.message),
            refusal.code,
            roster.version,
        ),
    }
}

#[cfg(test)]
mod tests {
    use fettle_proto::signed::{PrivateKey, sign};

    use super::*;

    fn certificate(reviewer: &str, bytes: &[u8]) -> (Certificate, Signed) {
        let certificate = Certificate {
            runbook: "a/b".to_owned(),
            runbook_digest: digest(Tag::Runbook, bytes),
            author: "dan".to_owned(),
            reviewer: reviewer.to_owned(),
            at: "2026-11-21T18:00:00Z".parse().expect("a time"),
        };
        let key = PrivateKey::from_seed([3; 32], reviewer);
        let signed = sign(&key, Namespace::Runbook, &certificate.encode()).expect("signs");
        (certificate, signed)
    }

    #[test]
    fn certifying_again_keeps_other_reviewers_of_the_same_bytes_and_drops_those_of_older_ones() {
        let (_, old) = certificate("eve", b"older");
        let (_, cleo) = certificate("cleo", b"bytes");
        let (_, dora_before) = certificate("dora", b"bytes");
        let (dora, fresh) = certificate("dora", b"bytes");
        let all = with(&[old, cleo.clone(), dora_before], fresh.clone(), &dora);
        assert_eq!(all, [cleo, fresh]);
    }

    #[test]
    fn the_file_of_certificates_stands_beside_the_runbook() {
        assert_eq!(
            beside(Path::new("library/host/disk-full.yaml")),
            Path::new("library/host/disk-full.cert")
        );
    }
}
