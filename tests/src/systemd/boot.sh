#!/usr/bin/env bash
# Boots a systemd over an overlay of `/`, in namespaces of its own, and takes it down when its standard input ends, which it
# does however the process at the other end of it dies.
#
#   boot.sh DIRECTORY [FOLDER…]      as root; the folders are seen inside as they are, read-only
#   FETTLE_TEST_STATE=FOLDER         is what an agent inside keeps its state in
#
# DIRECTORY gets a file `starter` with the number of a process whose only child is that systemd. The network stays the
# host's, so that what is inside reaches what is outside; whatever would change the network is masked or read-only.
set -euo pipefail

# Second: in a mount namespace of our own, which goes with its last process.
furnish() {
  local directory=$1 root=$1/root
  shift
  mount -t tmpfs -o mode=700 tmpfs "$directory/layers"
  mkdir "$directory"/layers/{upper,work}
  mount -t overlay -o "lowerdir=/,upperdir=$directory/layers/upper,workdir=$directory/layers/work" overlay "$root"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  mkdir "$root"/dev/{pts,shm}
  mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$root/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  local device folder unit
  for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
  done
  for folder; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
    mount -o remount,bind,ro "$root$folder"
  done

  if [[ -n ${FETTLE_TEST_STATE-} ]]; then
    mkdir -p "$root/var/lib/fettle-agent"
    mount --bind "$FETTLE_TEST_STATE" "$root/var/lib/fettle-agent"
  fi

  # What the host would mount and start by itself is not ours to start a second time.
  : >"$root/etc/fstab"
  : >"$root/etc/machine-id"
  echo fettle-test >"$root/etc/hostname"
  rm -rf "$root"/{etc,usr/lib,lib}/systemd/{system,user}/*.{wants,requires}
  local masked=(
    systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service
    systemd-hwdb-update.service systemd-sysctl.service systemd-modules-load.service systemd-binfmt.service
    proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount systemd-random-seed.service systemd-remount-fs.service
    systemd-logind.service systemd-timesyncd.service systemd-networkd.service systemd-resolved.service networking.service
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount
    sys-fs-fuse-connections.mount getty.target console-getty.service
  )
  for unit in "${masked[@]}"; do ln -sfn /dev/null "$root/etc/systemd/system/$unit"; done
  cat >"$root/etc/systemd/system/fettle-test.target" <<'END'
[Unit]
Requires=basic.target dbus.socket dbus.service systemd-journald.service
After=basic.target dbus.service
END
  exec setsid unshare --fork --pid --mount --cgroup --uts --ipc --kill-child -- bash "$0" --first "$root"
}

# Third: the first process of its namespace, about to become systemd.
become() {
  local root=$1
  mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount -o remount,bind,ro "$root/proc/sys"
  mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
  # A fresh one: over the host's, systemd would change how the host's is mounted.
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  exec chroot "$root" /usr/bin/env -i container=docker PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=fettle-test.target --show-status=false --log-target=journal
}

# First: outside, to the end.
keep() {
  local directory=$1 group starter born='' try
  trap '' HUP INT TERM
  mkdir "$directory"/{layers,root}
  group=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)/fettle-test-$$
  mkdir "$group"
  (
    trap - HUP INT TERM
    echo "$BASHPID" >"$group/cgroup.procs"
    exec unshare --mount --propagation private -- bash "$0" --inside "$@"
  ) </dev/null &
  starter=$!
  echo "$group" >"$directory/group"
  echo "$starter" >"$directory/starter.new"
  mv "$directory/starter.new" "$directory/starter"
  cat >/dev/null || true
  # The starter buries what it has borne, and ends.
  read -r born <"/proc/$starter/task/$starter/children" || true
  kill -9 ${born:-"$starter"} || true
  wait "$starter" || true
  echo 1 >"$group/cgroup.kill" || true
  # The kernel says "busy" for a moment after the last process is gone.
  for try in {1..100}; do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
    sleep 0.05
  done
  rm -rf --one-file-system "$directory"
} 2>>"$1/said"

case $1 in
  --inside) furnish "${@:2}" ;;
  --first) become "$2" ;;
  *) keep "$@" ;;
esac
