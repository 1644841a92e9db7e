//! Alerts that must start nothing, as they come in: what the page of the library says about labels.

use fettle_tests::alerts::firing;
use serde_json::json;

use super::scene::builder;

#[test]
fn an_alert_for_what_a_runbook_cannot_mend_or_with_a_hostile_label_starts_nothing() {
    // The host is this machine: nothing may run here, whatever a trigger says.
    let policy = json!({ "modes": [{ "runbook": "*", "mode": "observe" }] });
    let cluster = builder().policy(policy).agent("web-1").start();
    let trail = |alert: &str, labels: &[(&str, &str)]| -> String {
        let labels: Vec<_> = [("instance", "web-1:9100")].iter().chain(labels).copied().collect();
        let answer = cluster.post(&firing(alert, &labels));
        assert_eq!(answer.status, 200, "{answer:?}");
        let signal = cluster.newest_signal();
        assert_eq!(signal["run"], serde_json::Value::Null, "{signal:#}");
        signal["trail"].to_string()
    };
    let fits = trail("NodeFilesystemAlmostOutOfSpace", &[("mountpoint", "/var"), ("fstype", "ext4")]);
    assert!(fits.contains("fits, on web-1"), "{fits}");
    let tmpfs = trail("NodeFilesystemAlmostOutOfSpace", &[("mountpoint", "/run"), ("fstype", "tmpfs")]);
    assert!(tmpfs.contains("its match is false"), "{tmpfs}");
    for mount in ["/var/../etc", "-rf", "--help", "/var\n/etc", "$(reboot)", "var", ""] {
        for alert in ["HostOutOfDiskSpace", "HostOutOfInodes"] {
            let trail = trail(alert, &[("mountpoint", mount)]);
            let refused = trail.contains("its inputs do not fit: input `mount`");
            assert!(refused && !trail.contains("fits, on"), "{mount:?}: {trail}");
        }
    }
}
