//! What no step that only reads may see, whoever it is: keys, passwords, control sockets, the agent's own state.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files and directories. One `*` in the last part stands for anything.
const SECRETS: &[&str] = &[
    // passwords
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/security/opasswd",
    "/etc/krb5.keytab",
    "/etc/ppp/chap-secrets",
    "/etc/ppp/pap-secrets",
    "/etc/ipsec.secrets",
    "/etc/NetworkManager/system-connections",
    "/var/lib/NetworkManager/secret_key",
    "/var/lib/sss/secrets",
    "/var/lib/sss/db",
    // private keys
    "/etc/ssh/ssh_host_*_key",
    "/etc/ssl/private",
    "/etc/pki/tls/private",
    "/etc/pki/CA/private",
    "/etc/letsencrypt/archive",
    "/etc/letsencrypt/live",
    "/etc/letsencrypt/keys",
    "/etc/letsencrypt/accounts",
    "/etc/wireguard",
    "/etc/openvpn",
    "/etc/ipsec.d/private",
    "/etc/swanctl/private",
    "/etc/kubernetes",
    "/var/lib/kubelet/pki",
    "/etc/rancher",
    "/var/lib/rancher/k3s/server",
    "/etc/docker/key.json",
    "/etc/salt/pki",
    "/etc/puppetlabs/puppet/ssl/private_keys",
    "/etc/chef",
    "/etc/vault.d",
    "/etc/ceph",
    "/etc/fettle",
    "/var/lib/fettle*",
    "/etc/cloud",
    "/var/lib/cloud",
    "/etc/credstore",
    "/etc/credstore.encrypted",
    "/var/lib/systemd/credential.secret",
    "/run/credentials",
    "/run/secrets",
    "/var/log/installer",
    // the memory of the machine, and logs that are gone once read
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/keys",
    "/proc/sysrq-trigger",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    // sockets that obey
    "/run/dbus",
    "/run/systemd/private",
    "/run/systemd/journal",
    "/run/systemd/notify",
    "/run/systemd/io.*",
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
    "/run/cri-dockerd.sock",
    "/run/libvirt",
    "/run/lxd.socket",
    "/var/lib/lxd/unix.socket",
    "/var/lib/incus/unix.socket",
    "/run/snapd.socket",
    "/run/sudo",
];

/// What of a home directory.
const AT_HOME: &[&str] = &[
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".config/gcloud",
    ".config/gh",
    ".config/containers/auth.json",
    ".netrc",
    ".pgpass",
    ".my.cnf",
    ".git-credentials",
    ".vault-token",
    ".password-store",
    ".local/share/keyrings",
    ".bash_history",
    ".zsh_history",
    ".psql_history",
    ".mysql_history",
];

/// Those that are there, as they are really called. Homes of others are looked at only where they could be read.
pub(in crate::works) fn present(state: &Path, everybody: bool) -> BTreeSet<PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let homes = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let uid: u32 = fields.next()?.parse().ok()?;
        let home = fields.nth(2)?;
        (home.starts_with('/') && home != "/" && (everybody || uid == own)).then(|| PathBuf::from(home))
    });
    let homes: BTreeSet<PathBuf> = homes.collect();
    let at_home = homes.iter().flat_map(|home| AT_HOME.iter().map(|name| home.join(name)));
    let wanted =
        SECRETS.iter().flat_map(|pattern| matching(pattern)).chain(at_home).chain([state.to_owned()]);
    // Most are not there, and to find the real name of what is not there takes the longest.
    let there = wanted.filter(|path| path.exists());
    let mut present: BTreeSet<PathBuf> = there.filter_map(|path| path.canonicalize().ok()).collect();
    // A link to something that is no file, such as a socket's in /dev, must not hide half the host.
    present.remove(Path::new("/"));
    present
}

fn matching(pattern: &str) -> Vec<PathBuf> {
    let path = PathBuf::from(pattern);
    let Some((head, tail)) = pattern.split_once('*') else { return vec![path] };
    let (dir, start) = head.rsplit_once('/').unwrap_or(("", head));
    let Ok(entries) = std::fs::read_dir(dir) else { return vec![] };
    let names = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.len() >= start.len() + tail.len() && name.starts_with(start) && name.ends_with(tail)
    });
    names.map(|entry| entry.path()).collect()
}
