//! Files that the tests open, and processes that hold them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::super::tests::peak;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn ask(path: &Path) -> BTreeMap<String, Value> {
    match read(path.to_str().unwrap(), PATIENCE) {
        Ok(Value::Map(fields)) => fields,
        other => panic!("{other:?}"),
    }
}

fn place() -> TempDir {
    tempfile::tempdir_in("/tmp").unwrap()
}

fn file(path: &Path, size: usize) -> File {
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    file.write_all(&vec![b'x'; size]).unwrap();
    file.sync_all().unwrap();
    file
}

fn number(value: &Value) -> i64 {
    if let Value::Int(number) = value { *number } else { panic!("{value:?}") }
}

fn records(value: &Value) -> Vec<BTreeMap<String, Value>> {
    let Value::List(items) = value else { panic!("{value:?}") };
    let fields =
        |item: &Value| if let Value::Map(fields) = item { fields.clone() } else { panic!("{item:?}") };
    items.iter().map(fields).collect()
}

fn text(text: impl Into<String>) -> Value {
    Value::String(text.into())
}

#[test]
fn a_file_that_is_open_and_deleted_is_told_of_with_who_holds_it() {
    let dir = place();
    let gone = dir.path().join("gone.log");
    let held = file(&gone, 300_000);
    let kept = file(&dir.path().join("kept"), 10);
    std::fs::remove_file(&gone).unwrap();

    let found = ask(dir.path());
    assert_eq!(number(&found["count"]), 2, "{found:?}");
    assert_eq!(number(&found["deleted_count"]), 1, "{found:?}");
    let bytes = number(&found["deleted_bytes"]);
    assert!((300_000..400_000).contains(&bytes), "{found:?}");
    let me = int(std::process::id().into());
    assert_eq!(found["pids"], Value::List(vec![me.clone()]));
    let deleted = records(&found["deleted"]);
    assert_eq!(deleted.len(), 1);
    assert_eq!(deleted[0]["pid"], me);
    assert_eq!(deleted[0]["path"], text(gone.to_str().unwrap()));
    assert_eq!(number(&deleted[0]["bytes"]), bytes);
    let processes = records(&found["processes"]);
    assert_eq!(processes[0]["pid"], me);
    assert_eq!(processes[0]["files"], Value::Int(2));
    drop((held, kept));
    let found = ask(dir.path());
    assert_eq!((number(&found["count"]), number(&found["deleted_count"])), (0, 0), "{found:?}");
}

#[test]
fn whose_a_deleted_file_is_is_told_beside_who_holds_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: only root can hold a file of somebody else's making");
        return;
    }
    let dir = place();
    let path = dir.path().join("gone");
    let held = file(&path, 10_000);
    std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
    std::fs::remove_file(&path).unwrap();
    let deleted = records(&ask(dir.path())["deleted"]);
    assert_eq!((&deleted[0]["uid"], &deleted[0]["process_uid"]), (&Value::Int(65_534), &Value::Int(0)));
    drop(held);
}

#[test]
fn a_file_that_only_lost_one_of_its_names_gives_nothing_back_and_is_not_deleted() {
    let dir = place();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    let _held = file(&one, 10);
    std::fs::hard_link(&one, &other).unwrap();
    std::fs::remove_file(&one).unwrap();
    assert_eq!(number(&ask(dir.path())["deleted_count"]), 0);
    // Nor is one that is merely called so.
    let _called = file(&dir.path().join("x (deleted)"), 10);
    assert_eq!(number(&ask(dir.path())["deleted_count"]), 0);
}

#[test]
fn one_file_counts_once_however_often_it_is_open() {
    let dir = place();
    let gone = dir.path().join("gone");
    let held = file(&gone, 50_000);
    let again: Vec<File> = (0..20).map(|_| held.try_clone().unwrap()).collect();
    std::fs::remove_file(&gone).unwrap();
    let found = ask(dir.path());
    assert_eq!((number(&found["count"]), number(&found["deleted_count"])), (1, 1), "{found:?}");
    assert_eq!(records(&found["deleted"]).len(), 1);
    assert!(number(&found["deleted_bytes"]) < 100_000);
    drop(again);
}

#[test]
fn only_what_is_below_the_path_and_on_its_filesystem_counts() {
    let dir = place();
    let (a, ab) = (dir.path().join("a"), dir.path().join("ab"));
    std::fs::create_dir(&a).unwrap();
    std::fs::create_dir(&ab).unwrap();
    let _in_a = file(&a.join("x"), 10);
    let _in_ab = [file(&ab.join("x"), 10), file(&ab.join("y"), 10)];
    assert_eq!(number(&ask(&a)["count"]), 1);
    assert_eq!(number(&ask(&ab)["count"]), 2);
    assert_eq!(number(&ask(dir.path())["count"]), 3);
    // By a link, the directory that it leads to is meant.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&a, &link).unwrap();
    assert_eq!(number(&ask(&link)["count"]), 1);

    // Another filesystem, whole.
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let there = shm.path().join("gone");
    let _held = file(&there, 10_000);
    std::fs::remove_file(&there).unwrap();
    let found = ask(Path::new("/dev/shm"));
    let deleted = records(&found["deleted"]);
    assert!(deleted.iter().any(|file| file["path"] == text(there.to_str().unwrap())), "{deleted:?}");
    assert_eq!(number(&ask(dir.path())["count"]), 3);
}

/// A process that maps a file, closes and deletes it, and waits for its end.
#[expect(clippy::disallowed_methods, reason = "a test starts its own")]
fn mapper(path: &Path) -> Option<Child> {
    let code = "import mmap, os, sys
f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close(); os.unlink(sys.argv[1])
print('ready', flush=True); sys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", code])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    Some(child)
}

#[test]
fn a_mapped_file_is_open_without_a_descriptor() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: only root may look at mappings");
        return;
    }
    let dir = place();
    let path = dir.path().join("mapped");
    file(&path, 40_000);
    let Some(mut child) = mapper(&path) else {
        eprintln!("NOT RUN: there is no python3");
        return;
    };
    let found = ask(dir.path());
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(number(&found["deleted_count"]), 1, "{found:?}");
    assert!(number(&found["deleted_bytes"]) >= 40_000, "{found:?}");
}

#[test]
fn what_is_told_one_by_one_is_bounded_and_the_biggest_come_first() {
    let dir = place();
    let held: Vec<File> = (0..80)
        .map(|number| {
            let path = dir.path().join(format!("gone-{number}"));
            let held = file(&path, 5000 * (number + 1));
            std::fs::remove_file(&path).unwrap();
            held
        })
        .collect();
    let found = ask(dir.path());
    assert_eq!(number(&found["deleted_count"]), 80);
    let deleted = records(&found["deleted"]);
    assert_eq!(deleted.len(), MOST_DELETED);
    let bytes: Vec<i64> = deleted.iter().map(|file| number(&file["bytes"])).collect();
    assert!(bytes.is_sorted_by(|a, b| a >= b), "{bytes:?}");
    assert!(number(&found["deleted_bytes"]) > bytes.iter().sum());
    drop(held);
}

#[test]
fn many_descriptors_take_no_time_to_speak_of() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(51_000), maximum: Some(51_000) });
    if raised.is_err() {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
    }
    let limit = getrlimit(Resource::Nofile);
    let many = limit.maximum.map_or(50_000, |most| most.saturating_sub(1000).min(50_000)) as usize;
    let dir = place();
    let one = file(&dir.path().join("one"), 10);
    let held: Vec<File> = (0..many).map(|_| one.try_clone().unwrap()).collect();
    let began = Instant::now();
    let found = ask(dir.path());
    let took = began.elapsed();
    eprintln!("{many} descriptors: {took:?}");
    assert_eq!(number(&found["count"]), 1);
    assert!(took < Duration::from_secs(3), "{many} descriptors took {took:?}");
    drop(held);
}

#[test]
fn long_names_of_many_deleted_files_fill_no_memory() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let many = most.map_or(6000, |most| most.saturating_sub(100).min(6000)) as usize;
    assert!(many > 3000, "{many} files are too few to tell");
    let dir = place();
    let deep = (0..15).fold(dir.path().to_owned(), |path, _| path.join("d".repeat(250)));
    std::fs::create_dir_all(&deep).unwrap();
    let held: Vec<File> = (0..many)
        .map(|number| {
            let path = deep.join(number.to_string());
            let file = File::create(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            file
        })
        .collect();
    let before = peak();
    let found = ask(Path::new("/tmp"));
    let took = peak().saturating_sub(before);
    assert!(number(&found["deleted_count"]) >= many as i64, "{:?}", found["deleted_count"]);
    let names = many as u64 * 3800;
    assert!(took < names / 4, "{took} bytes of memory for {names} bytes of names");
    drop(held);
}

#[test]
fn what_cannot_be_looked_at_says_why_or_is_counted() {
    for wrong in ["var", "/nonexistent"] {
        assert!(read(wrong, PATIENCE).is_err(), "{wrong}");
    }
    let why = read("/", Duration::ZERO).unwrap_err();
    assert!(why.contains("too many open files"), "{why}");
    let hidden = number(&ask(Path::new("/"))["hidden"]);
    if rustix::process::geteuid().is_root() {
        assert_eq!(hidden, 0);
    } else {
        assert!(hidden > 0, "the first process is somebody else's");
    }
}
