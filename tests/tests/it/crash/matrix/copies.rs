//! A store that is copied, and put back, by somebody who dies at it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use fettle_controller::store::backup;
use fettle_tests::cluster::told;
use fettle_tests::desk::Desk;
use fettle_tests::programs::binary;

use super::hosts::Host;
use super::plays::{Story, goes_on, move_controller, shown, stage};
use super::words::Word;
use super::{Chance, Row, Way};

/// Plays a row on a controller of its own, whose host's power can fail. Gives back how many deaths there were.
pub(super) fn on_a_controller(row: &Row, way: Way, chance: &mut Chance, times: u64) -> u64 {
    let mut cluster = stage().agent("web-1").start();
    let Some(host) = move_controller(&mut cluster) else { return 0 };
    let desk = Desk::of(host.cluster(), "ana");
    let mut keeper = Keeper { host, desk: &desk, number: 0 };
    keeper.host.start_if_not();
    keeper.story("what is in every copy");
    for time in 0..times {
        keeper.one(row, way, chance, &format!("{} {way:?} {time}", row.point));
    }
    keeper.host.deaths
}

/// Who copies a store and puts it back.
struct Keeper<'a, 'c> {
    host: Host<'c>,
    desk: &'a Desk<'c>,
    number: u64,
}

impl<'a, 'c> Keeper<'a, 'c> {
    fn one(&mut self, row: &Row, way: Way, chance: &mut Chance, case: &str) {
        let word = Word::of(row.says(way)).expect("it was read before");
        self.number += 1;
        self.host.start_if_not();
        let copy = self.host.state().join(format!("{}.db", self.number));
        if row.point.starts_with("backup.") {
            self.copy(&copy, row, way, word, case);
        } else {
            self.typed("backup", "--to", &copy, case);
            // What is not in the copy.
            self.story(case);
            self.put_back(&copy, row, way, word, chance, case);
        }
        self.host.start_if_not();
        self.story(case);
        // What one keeps is for people to remove.
        let clutter =
            fs::read_dir(self.host.state()).expect("it is there").flatten().map(|entry| entry.path());
        clutter.filter(|path| path.is_file() && path.to_string_lossy().contains(".db")).for_each(removed);
    }

    /// The copy is made while the controller runs.
    fn copy(&mut self, copy: &Path, row: &Row, way: Way, word: Word, case: &str) {
        self.host.arm(row.point, way);
        let died = self.type_it("backup", "--to", copy);
        assert!(!died.status.success(), "{case}: {}", told(&died));
        self.died(case, &died);
        if word == Word::NoCopy {
            assert!(!copy.exists(), "{case}: {} is there", copy.display());
            self.typed("backup", "--to", copy, case);
        } else {
            assert_eq!(word, Word::Copy, "{case}: so a copy can end");
            let again = self.type_it("backup", "--to", copy);
            assert!(told(&again).contains("there is a file of that name"), "{case}: {}", told(&again));
        }
        backup::look(copy).unwrap_or_else(|why| panic!("{case}: {why}"));
    }

    /// The copy is put back while the controller is away.
    fn put_back(&mut self, copy: &Path, row: &Row, way: Way, word: Word, chance: &mut Chance, case: &str) {
        self.host.halt();
        fettle_tests::power::sync(&self.host.state()).expect("it can be synced");
        let database = self.host.state().join("store/controller.db");
        let number = || fs::metadata(&database).unwrap_or_else(|why| panic!("{case}: {why}")).ino();
        let before = number();
        self.host.arm(row.point, way);
        let died = self.type_it("restore", "--from", copy);
        assert!(!died.status.success(), "{case}: {}", told(&died));
        self.died(case, &died);
        let found = if number() == before { Word::Before } else { Word::Restored };
        assert_eq!(found, word, "{case}: {}", told(&died));
        super::super::history_gives_the_tables(self.host.cluster());
        if chance.below(2) == 0 {
            self.typed("restore", "--from", copy, case);
        }
        let kept = fs::read_dir(self.host.state().join("store")).expect("it is there").flatten();
        let kept = kept.map(|entry| entry.path());
        kept.filter(|path| path.to_string_lossy().contains(".db.before-")).for_each(removed);
    }

    #[track_caller]
    fn died(&mut self, case: &str, output: &Output) {
        self.host.look();
        assert!(!self.host.waits(), "{case}: nobody ever came there: {}", told(output));
    }

    /// One alert, to its end.
    #[track_caller]
    fn story(&mut self, case: &str) {
        self.number += 1;
        let cluster = self.host.cluster();
        let mut story =
            Story::new(cluster, self.desk, "web-1", &cluster.path("stories").join("web-1"), self.number);
        let host = &self.host;
        story.begin(|| ());
        let (seen, asked) = story.play(|| host.said(), || ());
        let context = format!("{case}: {}\n{}", shown(&seen), host.said());
        story.nothing_twice(&context);
        assert_eq!(asked, None, "{context}");
        goes_on(&story, &seen, None, &context);
    }

    fn type_it(&self, command: &str, option: &str, file: &Path) -> Output {
        Command::new(binary("fettle-controller"))
            .args([command, "--config"])
            .arg(self.host.cluster().path("controller.yaml"))
            .arg(option)
            .arg(file)
            .envs(self.host.env())
            .stdin(Stdio::null())
            .output()
            .expect("fettle-controller can be run")
    }

    /// The same, which must work.
    #[track_caller]
    fn typed(&self, command: &str, option: &str, file: &Path, case: &str) {
        let output = self.type_it(command, option, file);
        assert!(output.status.success(), "{case}: {}", told(&output));
    }
}

fn removed(file: impl AsRef<Path>) {
    fs::remove_file(file).expect("it can be removed");
}
