//! `host/memory-pressure`

use super::scene::Scene;

#[test]
fn want_of_memory_is_explained_and_nothing_is_changed() {
    let Some(scene) = Scene::new(|_| {}) else { return };
    let machine = &scene.machine;
    machine.ok(&["sh", "-euc", "cp /usr/bin/perl /usr/local/bin/hog"]);
    machine.unit(
        "greedy.service",
        "[Service]\nExecStart=/usr/local/bin/hog -e '$$x = \"a\" x (300 << 20); sleep 1000' -- --password=hunter2\n",
    );
    machine.ok(&["systemctl", "start", "greedy.service"]);
    machine.until("greedy.service", "SubState", "running");
    let pid = machine.property("greedy.service", "MainPID");
    let run = scene.fire("HostOutOfMemory", &[]);
    let ended = scene.ended(&run);
    ended.is("succeeded");
    for step in [
        "memory",
        "pressure",
        "processes",
        "units",
        "swapped",
        "kernel",
        "in-memory",
        "young",
        "killed",
        "paging",
    ] {
        assert_eq!(ended.step(&format!("diagnose/{step}")), "succeeded", "{step}: {}", ended.all());
    }
    let line = ended.said.lines().find(|line| line.contains("hog") && line.contains("greedy.service"));
    assert!(line.is_some_and(|line| line.contains(&pid)), "it says who has the memory: {}", ended.all());
    assert!(!ended.all().contains("hunter2"), "nobody's command line is told");
    assert_eq!(machine.property("greedy.service", "MainPID"), pid, "it goes on");
}
