//! What a step may ask of the kernel: everything but what is listed here, and nothing the kernel has learnt since.
//!
//! Sockets of the host obey whoever may connect to them (D-Bus's is open to all), and only their paths say which they are,
//! which a filter cannot see. So a step has no such sockets at all: it uses TCP, to the ports it names, and netlink's two
//! families that list sockets and addresses.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, Ge, MaskedEq, Ne};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter, sock_filter,
};

use super::Order;

type Error = Box<dyn std::error::Error>;
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The last call this list was written for (Linux 6.13). Later ones, and the calls of other ABIs of the same processor
/// (whose numbers are far larger), do not exist.
const LAST_KNOWN: u32 = 466;

/// Denied whatever their arguments are.
const DENIED: &[c_long] = &[
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // ways around the file system's checks
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // the kernel's engines
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // namespaces and mounts
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_acct,
    // the machine
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    // memory shared with whoever knows its number or name
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // being connected to
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
];

/// The same, where this processor's kernel has calls that others do not.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[c_long] =
    &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib, libc::SYS__sysctl];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[c_long] = &[];

/// What of a file neither Landlock nor, without root, a mount protects.
const CHANGES_OF_FILES: &[c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    452, // fchmodat2
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    463, // setxattrat
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    466, // removexattrat
];
#[cfg(target_arch = "x86_64")]
const CHANGES_HERE: &[c_long] = &[
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const CHANGES_HERE: &[c_long] = &[];

/// `FS_IOC_SETFLAGS`, `FS_IOC_FSSETXATTR`, `FS_IOC_SETVERSION`: immutable, append-only and their like.
const IOCTLS_OF_FILES: [u64; 3] = [0x4008_6602, 0x401c_5820, 0x4008_7602];

/// Confines this process and all its children.
pub(super) fn confine(order: &Order) -> Result<(), Error> {
    let arch = std::env::consts::ARCH.try_into()?;
    let no = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let denied = SeccompFilter::new(rules(order)?, SeccompAction::Allow, no, arch)?;
    let denied: seccompiler::BpfProgram = denied.try_into()?;
    apply_filter(&unknown())?;
    apply_filter(&denied)?;
    Ok(())
}

/// Load the number; is it greater than the last known, or clone3, whose arguments are in memory, where no filter can look?
/// No such call. Else allowed, as far as this filter goes.
fn unknown() -> [sock_filter; 5] {
    const LOAD: u16 = 0x20;
    const IF_GREATER: u16 = 0x25;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const NO_SUCH: u32 = 0x0005_0000 | libc::ENOSYS as u32;
    [
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: IF_GREATER, jt: 1, jf: 0, k: LAST_KNOWN },
        sock_filter { code: IF_EQUAL, jt: 0, jf: 1, k: libc::SYS_clone3 as u32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: NO_SUCH },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: ALLOW },
    ]
}

/// One condition: which argument, how wide, compared how, with what.
type Condition = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);

/// Calls that are denied when all conditions of one of their rules hold.
#[derive(Default)]
struct Book(Rules);

impl Book {
    fn always(&mut self, calls: &[c_long]) {
        self.0.extend(calls.iter().map(|call| (*call, vec![])));
    }

    fn when(&mut self, call: c_long, conditions: &[Condition]) -> Result<(), Error> {
        let conditions = conditions.iter().map(|(argument, width, op, value)| {
            SeccompCondition::new(*argument, width.clone(), op.clone(), *value)
        });
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        self.0.entry(call).or_default().push(rule);
        Ok(())
    }
}

fn rules(order: &Order) -> Result<Rules, Error> {
    let mut book = Book::default();
    book.always(DENIED);
    book.always(DENIED_HERE);
    // Namespaces are made by clone as well.
    for flag in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ] {
        let flag = u64::from(flag.unsigned_abs());
        book.when(libc::SYS_clone, &[(0, Qword, MaskedEq(flag), flag)])?;
    }
    sockets(&mut book, order)?;
    others(&mut book)?;
    // The kernel's log may be read, not emptied or silenced; 3, 9 and 10 read it and its size.
    for (from, to) in [(0, 3), (4, 9)] {
        for action in from..to {
            book.when(libc::SYS_syslog, &[(0, Dword, Eq, action)])?;
        }
    }
    // Typing into a terminal that somebody else reads.
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        book.when(libc::SYS_ioctl, &[(1, Dword, Eq, request)])?;
    }
    if order.uid.is_none() {
        book.always(CHANGES_OF_FILES);
        book.always(CHANGES_HERE);
        for request in IOCTLS_OF_FILES {
            book.when(libc::SYS_ioctl, &[(1, Dword, Eq, request & 0xffff_ffff)])?;
        }
    }
    Ok(book.0)
}

fn sockets(book: &mut Book, order: &Order) -> Result<(), Error> {
    const KIND: u64 = 0xf; // without the flags beside it
    let number = |number: i32| u64::from(number.unsigned_abs());
    let (inet, inet6) = (number(libc::AF_INET), number(libc::AF_INET6));
    let (netlink, unix) = (number(libc::AF_NETLINK), number(libc::AF_UNIX));
    let stream = number(libc::SOCK_STREAM);
    if order.allowed.connect.is_empty() {
        book.when(libc::SYS_socket, &[(0, Dword, Ne, netlink)])?;
    }
    book.when(libc::SYS_socket, &[(0, Dword, Ne, inet), (0, Dword, Ne, inet6), (0, Dword, Ne, netlink)])?;
    for kind in (0..=KIND).filter(|kind| *kind != stream) {
        book.when(libc::SYS_socket, &[(0, Dword, Ne, netlink), (1, Dword, MaskedEq(KIND), kind)])?;
    }
    let tcp = number(libc::IPPROTO_TCP);
    book.when(libc::SYS_socket, &[(0, Dword, Ne, netlink), (2, Dword, Ne, 0), (2, Dword, Ne, tcp)])?;
    let (route, diag) = (number(libc::NETLINK_ROUTE), number(libc::NETLINK_SOCK_DIAG));
    book.when(libc::SYS_socket, &[(0, Dword, Eq, netlink), (2, Dword, Ne, route), (2, Dword, Ne, diag)])?;
    // A pair is connected to itself; but one of datagrams may send elsewhere.
    book.when(libc::SYS_socketpair, &[(0, Dword, Ne, unix)])?;
    for kind in (0..=KIND).filter(|kind| ![stream, number(libc::SOCK_SEQPACKET)].contains(kind)) {
        book.when(libc::SYS_socketpair, &[(1, Dword, MaskedEq(KIND), kind)])?;
    }
    // Connects and sends at once, past Landlock.
    let fast = number(libc::MSG_FASTOPEN);
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        book.when(call, &[(flags, Dword, MaskedEq(fast), fast)])?;
    }
    Ok(())
}

/// Priorities, processors and limits: a step may change its own.
fn others(book: &mut Book) -> Result<(), Error> {
    for call in [
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
    ] {
        book.when(call, &[(0, Dword, Ne, 0)])?;
    }
    book.when(libc::SYS_prlimit64, &[(0, Dword, Ne, 0), (2, Qword, Ne, 0)])?;
    // Which: of a process, a group, a user. A user's are everybody's who has the same.
    book.when(libc::SYS_setpriority, &[(1, Dword, Ne, 0)])?;
    book.when(libc::SYS_setpriority, &[(0, Dword, Ge, 2)])?;
    book.when(libc::SYS_ioprio_set, &[(1, Dword, Ne, 0)])?;
    book.when(libc::SYS_ioprio_set, &[(0, Dword, Ge, 3)])?;
    Ok(())
}
