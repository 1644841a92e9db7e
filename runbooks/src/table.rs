//! Tables of the documents, written from the code.

use std::path::Path;

/// Fails unless `docs/architecture.md` has this text between its markers; with `UPDATE=1` in the environment, writes it
/// there.
#[track_caller]
pub(crate) fn documented(name: &str, table: &str) {
    documented_in("architecture.md", name, table);
}

/// The same for any page of `docs/`.
#[track_caller]
pub(crate) fn documented_in(file: &str, name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
    let page = std::fs::read_to_string(&path).expect("the page can be read");
    let (open, close) = (format!("<!-- table:{name} -->\n"), format!("<!-- /table:{name} -->"));
    let (before, rest) = page.split_once(&open).unwrap_or_else(|| panic!("the page has no {open}"));
    let (there, after) = rest.split_once(&close).unwrap_or_else(|| panic!("the page has no {close}"));
    if there == table {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{open}{table}{close}{after}"))
            .expect("the page can be written");
        return;
    }
    panic!("docs/{file} shows another table than the code has; run the tests with UPDATE=1\n{table}");
}

/// What one state makes of every event: rows for what changes something, and which events change nothing.
#[derive(Default)]
pub(crate) struct Rows {
    text: String,
}

impl Rows {
    pub(crate) fn new() -> Rows {
        let mut rows = Rows::default();
        rows.text.push_str("| while | comes | then | to do |\n| --- | --- | --- | --- |\n");
        rows
    }

    pub(crate) fn row(&mut self, state: &str, event: &str, then: &str, to_do: &str) {
        self.text.push_str(&format!("| {state} | {event} | {then} | {to_do} |\n"));
    }

    pub(crate) fn ignored(&mut self, state: &str, events: &[String]) {
        if !events.is_empty() {
            self.row(state, &format!("*{}*", events.join(", ")), "", "*nothing*");
        }
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}
