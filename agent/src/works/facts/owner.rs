//! What a process is called, whose it is, and the unit of systemd that it belongs to.

use std::path::Path;

/// The unit's name, from the control group of the process; empty where it belongs to none, or where that cannot be told.
pub(in crate::works) fn unit(process: &Path) -> String {
    let groups = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    unit_of(&groups).unwrap_or_default().to_owned()
}

/// systemd keeps units in slices, and only the first name that is no slice is a unit of this host's systemd. What is below
/// it was made by the unit itself: a user's own units, whatever a container calls its own. They could be called anything, so
/// their names are not believed.
fn unit_of(groups: &str) -> Option<&str> {
    let path_of = |wanted: &str| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            (fields.next()? == wanted).then_some(())?;
            fields.next()
        })
    };
    // In one of the two systemd keeps its units; the other's names it does not choose.
    path_of("name=systemd").and_then(unit_in).or_else(|| path_of("").and_then(unit_in))
}

fn unit_in(path: &str) -> Option<&str> {
    let name = path.split('/').filter(|part| !part.is_empty()).find(|part| !part.ends_with(".slice"))?;
    let slices = path.split('/').filter(|part| !part.is_empty()).take_while(|part| *part != name).count();
    let kinds = [".service", ".scope", ".socket", ".mount", ".swap"];
    let known = kinds.iter().any(|kind| name.ends_with(kind)) && (slices > 0 || name == "init.scope");
    // A name that could be mistaken for a file of the kernel's is written with `_` before it.
    known.then(|| name.strip_prefix('_').unwrap_or(name))
}

/// What the kernel calls the process; nothing once it is gone.
pub(super) fn name(process: &Path) -> Option<String> {
    let bytes = std::fs::read(process.join("comm")).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

/// Who runs the process, whatever rights it was given beside that; nothing once it is gone.
pub(super) fn uid(process: &Path) -> Option<u32> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::unit_of;

    #[test]
    fn the_unit_is_the_first_name_below_the_slices() {
        assert_eq!(unit_of("0::/system.slice/nginx.service\n"), Some("nginx.service"));
        assert_eq!(
            unit_of("0::/system.slice/system-pg.slice/pg@15-main.service/x"),
            Some("pg@15-main.service")
        );
        assert_eq!(unit_of("0::/init.scope\n"), Some("init.scope"));
        assert_eq!(
            unit_of("2:cpu:/other\n1:name=systemd:/system.slice/a.service\n0::/\n"),
            Some("a.service")
        );
        assert_eq!(unit_of("1:name=systemd:/\n0::/system.slice/a.service\n"), Some("a.service"));
        assert_eq!(unit_of("0::/system.slice/_cpu.service\n"), Some("cpu.service"));
    }

    #[test]
    fn a_name_that_a_user_or_a_container_chose_is_no_unit_of_this_host() {
        let user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/sshd.service\n";
        assert_eq!(unit_of(user), Some("user@1000.service"));
        assert_eq!(unit_of("0::/docker/1f3a/system.slice/sshd.service\n"), None);
        assert_eq!(unit_of("0::/sshd.service\n"), None);
        assert_eq!(unit_of("0::/\n"), None);
        assert_eq!(unit_of("0::/../../system.slice/sshd.service"), None);
        assert_eq!(unit_of(""), None);
    }
}
