//! The shipped runbooks and the reference read as they should.

use std::path::Path;

/// Every file below a folder with this ending, in order.
fn files(folder: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_shipped_runbook_is_right_and_named_as_its_path() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("library");
    let runbooks = files(&library, ".yaml");
    assert!(runbooks.len() >= 2, "found only {runbooks:?}");
    for path in runbooks {
        let bytes = std::fs::read(&path).unwrap();
        let read = crate::read(&bytes).unwrap_or_else(|problems| {
            panic!("\n{}", crate::problem::render(&path.to_string_lossy(), &bytes, &problems, false))
        });
        let shown = crate::problem::render(&path.to_string_lossy(), &bytes, &read.warnings, false);
        assert!(read.warnings.is_empty(), "\n{shown}");
        let place = path.strip_prefix(&library).unwrap().with_extension("");
        assert_eq!(Path::new(read.runbook.name()), place);
    }
}
