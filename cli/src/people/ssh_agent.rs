//! A small client of ssh-agent: which keys it holds, and a signature by one of them.
//!
//! The protocol (draft-ietf-sshm-ssh-agent) is frames of a length, a type and strings. Only two questions are asked.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fettle_proto::signed::PublicKey;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// The largest answer that is read, bytes.
const LARGEST: usize = 256 * 1024;

/// An agent may ask its user before it signs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running ssh-agent.
#[derive(Clone, Debug)]
pub struct SshAgent {
    socket: PathBuf,
}

impl SshAgent {
    /// The agent of the environment (`SSH_AUTH_SOCK`), if it names one.
    pub fn from_env() -> Option<SshAgent> {
        std::env::var_os("SSH_AUTH_SOCK")
            .filter(|path| !path.is_empty())
            .map(|path| SshAgent::at(Path::new(&path)))
    }

    /// The agent that listens on this socket.
    pub fn at(socket: &Path) -> SshAgent {
        SshAgent { socket: socket.to_path_buf() }
    }

    /// The keys it holds; kinds that we cannot read are left out.
    pub fn identities(&self) -> io::Result<Vec<PublicKey>> {
        let answer = self.ask(&[REQUEST_IDENTITIES], IDENTITIES_ANSWER)?;
        let mut rest = answer.as_slice();
        let count = number(&mut rest)?;
        let mut keys = Vec::new();
        for _ in 0..count {
            let blob = string(&mut rest)?;
            let _comment = string(&mut rest)?;
            keys.extend(PublicKey::from_blob(blob).ok());
        }
        Ok(keys)
    }

    /// The signature (algorithm and bytes, as SSH encodes it) of this data by this key.
    pub fn sign(&self, key: &PublicKey, data: &[u8]) -> io::Result<Vec<u8>> {
        let mut request = vec![SIGN_REQUEST];
        put(&mut request, &key.to_blob())?;
        put(&mut request, data)?;
        request.extend(0u32.to_be_bytes());
        let answer = self.ask(&request, SIGN_RESPONSE)?;
        Ok(string(&mut answer.as_slice())?.to_vec())
    }

    fn ask(&self, request: &[u8], expected: u8) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        let mut frame = Vec::new();
        put(&mut frame, request)?;
        stream.write_all(&frame)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 || length > LARGEST {
            return Err(bad("its answer has a length that makes no sense"));
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        match answer.remove(0) {
            found if found == expected => Ok(answer),
            FAILURE => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it refused")),
            _ => Err(bad("it answered something else")),
        }
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| bad("too large to send"))?;
    out.extend(length.to_be_bytes());
    out.extend(bytes);
    Ok(())
}

fn number(rest: &mut &[u8]) -> io::Result<u32> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(|| bad("its answer ends too early"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

fn string<'a>(rest: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let length = number(rest)? as usize;
    let (head, tail) = rest.split_at_checked(length).ok_or_else(|| bad("its answer ends too early"))?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_end_too_early_are_errors() {
        assert!(string(&mut [0, 0, 0, 5, 1].as_slice()).is_err());
        assert!(string(&mut [0, 0].as_slice()).is_err());
        assert!(string(&mut [255, 255, 255, 255].as_slice()).is_err());
    }
}
