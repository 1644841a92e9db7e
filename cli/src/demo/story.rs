//! How the demonstration tells what happens: a time, who, and what, line by line as it happens.

use std::time::Instant;

use anstyle::{AnsiColor, Style};

const QUIET: Style = Style::new().dimmed();
const WHO: Style = Style::new().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();

/// Tells the story on stderr, which is for talk; the incident at the end is data and goes to stdout.
pub(super) struct Story {
    began: Instant,
}

impl Story {
    /// Begins now.
    pub(super) fn new() -> Story {
        Story { began: Instant::now() }
    }

    /// Something that was done or happened.
    pub(super) fn line(&self, who: &str, what: &str) {
        self.tell(WHO, who, what);
    }

    /// Something that broke.
    pub(super) fn bad(&self, who: &str, what: &str) {
        self.tell(BAD, who, what);
    }

    /// Something that is well again.
    pub(super) fn good(&self, who: &str, what: &str) {
        self.tell(GOOD, who, what);
    }

    /// A heading between the parts of the story.
    pub(super) fn part(&self, title: &str) {
        anstream::eprintln!("\n{WHO}{title}{WHO:#}");
    }

    /// A line that belongs to the one before.
    pub(super) fn more(&self, text: &str) {
        for line in text.lines() {
            anstream::eprintln!("{:21}{QUIET}{}{QUIET:#}", "", crate::output::visible(line));
        }
    }

    fn tell(&self, style: Style, who: &str, what: &str) {
        let at = self.began.elapsed().as_secs_f32();
        let what = crate::output::visible(what);
        anstream::eprintln!("{QUIET}{at:6.1} s{QUIET:#}  {style}{who:<11}{style:#} {what}");
    }
}
