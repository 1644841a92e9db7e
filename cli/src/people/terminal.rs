//! Questions to the person at the terminal. Answers come from `/dev/tty`, so that a pipe can neither feed nor read them.

use std::fs::File;
use std::io::{self, BufRead as _, Read as _, Write as _};

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

fn tty() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}

/// Whether there is a person to ask.
pub fn is_there() -> bool {
    tty().is_ok()
}

/// The terminal's width in columns, within what people can read; phones give about 45.
pub fn width() -> usize {
    let asked = termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    let told = || std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    asked.filter(|width| *width > 0).or_else(told).unwrap_or(80).clamp(30, 100)
}

/// Asks a question; only a full `yes` is a yes.
pub fn confirm(question: &str) -> io::Result<bool> {
    let mut tty = tty()?;
    write!(tty, "{question} Type `yes` to sign: ")?;
    tty.flush()?;
    let mut line = String::new();
    // A person's line; whoever sends more than that does not mean yes.
    io::BufReader::new(tty.take(1024)).read_line(&mut line)?;
    Ok(line.trim().eq_ignore_ascii_case("yes"))
}

/// Asks for a passphrase without showing it. `None`: the person gave up (Ctrl-C, Ctrl-D).
pub fn passphrase(question: &str) -> io::Result<Option<String>> {
    let opened = tty()?;
    let _quiet = Quiet::new(&opened)?;
    let mut tty = &opened;
    write!(tty, "{question}: ")?;
    tty.flush()?;
    let mut typed = Vec::new();
    let mut byte = [0];
    let given = loop {
        if tty.read(&mut byte)? == 0 {
            break None;
        }
        match byte[0] {
            b'\r' | b'\n' => break Some(String::from_utf8_lossy(&typed).into_owned()),
            3 | 4 => break None,
            8 | 127 => backspace(&mut typed),
            21 => typed.clear(),
            other if typed.len() < 4096 => typed.push(other),
            _ => {}
        }
    };
    writeln!(tty)?;
    Ok(given)
}

/// Takes back one character, which may be several bytes.
fn backspace(typed: &mut Vec<u8>) {
    while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

/// Holds the terminal without echo; puts it back when dropped. Ctrl-C arrives as a byte, so that the terminal is never
/// left silent.
struct Quiet<'a> {
    tty: &'a File,
    before: Termios,
}

impl Quiet<'_> {
    fn new(tty: &File) -> io::Result<Quiet<'_>> {
        let before = termios::tcgetattr(tty)?;
        let mut quiet = before.clone();
        quiet.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(tty, OptionalActions::Flush, &quiet)?;
        Ok(Quiet { tty, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nothing else can be done for a terminal that refuses.
        let _ = termios::tcsetattr(self.tty, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backspace_takes_back_a_whole_character() {
        let mut typed = "pä".as_bytes().to_vec();
        backspace(&mut typed);
        assert_eq!(typed, b"p");
        backspace(&mut typed);
        backspace(&mut typed);
        assert!(typed.is_empty());
    }
}
