//! What a step might try, as plain calls of the kernel: each answers with the name of the error, or `allowed`.
#![allow(
    unsafe_code,
    reason = "the calls are made as an attacker would make them, without a library between"
)]

use std::ffi::CString;
use std::io::{Error, Read as _, Result};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// One try, in the sandbox of whoever asks for it; outside of any, one that is allowed there.
#[test]
fn a_try_says_what_the_kernel_answers() {
    let (Ok(what), Ok(with)) = (std::env::var("TRY"), std::env::var("WITH")) else {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").display().to_string();
        tried("create", &[&path]).unwrap();
        assert!(tried("create", &[&path]).is_err(), "it is there already");
        return;
    };
    let with: Vec<&str> = with.lines().collect();
    let answer = match tried(&what, &with) {
        Ok(()) => "allowed".to_owned(),
        Err(error) => name(&error),
    };
    println!("answer: {answer}");
}

fn name(error: &Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::EACCES) => "EACCES".to_owned(),
        Some(libc::EROFS) => "EROFS".to_owned(),
        Some(libc::ENOSYS) => "ENOSYS".to_owned(),
        Some(libc::ENOENT) => "ENOENT".to_owned(),
        Some(libc::ESRCH) => "ESRCH".to_owned(),
        Some(_) | None => error.to_string(),
    }
}

fn tried(what: &str, with: &[&str]) -> Result<()> {
    let first = with.first().copied().unwrap_or_default();
    let second = with.get(1).copied().unwrap_or_default();
    let path = CString::new(first).unwrap();
    let number = first.parse::<i64>().unwrap_or_default();
    let port = first.parse::<u16>().unwrap_or_default();
    match what {
        "write" => std::fs::OpenOptions::new().write(true).open(first).map(drop),
        "create" => std::fs::File::create_new(first).map(drop),
        "truncate" => done(unsafe { libc::truncate(path.as_ptr(), 0) }.into()),
        "delete" => std::fs::remove_file(first),
        "rename" => std::fs::rename(first, second),
        "link" => std::fs::hard_link(first, second),
        "mkdir" => std::fs::create_dir(first),
        "chmod" => std::fs::set_permissions(first, std::fs::Permissions::from_mode(0o777)),
        "chown" => done(unsafe { libc::chown(path.as_ptr(), libc::getuid(), libc::getgid()) }.into()),
        "utime" => done(unsafe { libc::utimes(path.as_ptr(), std::ptr::null()) }.into()),
        "xattr" => done(
            unsafe { libc::setxattr(path.as_ptr(), c"user.x".as_ptr(), c"y".as_ptr().cast(), 1, 0) }.into(),
        ),
        "mknod" => done(unsafe { libc::mknod(path.as_ptr(), libc::S_IFBLK | 0o666, 0) }.into()),
        "read" => std::fs::File::open(first)?.read_to_end(&mut Vec::new()).map(drop),
        "read-something" => match std::fs::read(first)?.len() {
            0 => Err(Error::other("empty")),
            _ => Ok(()),
        },
        "list" => match std::fs::read_dir(first)?.next() {
            None => Err(Error::other("empty")),
            Some(entry) => entry.map(drop),
        },
        "readlink" => std::fs::read_link(first).map(drop),
        "handle" => by_handle(Path::new(first)),
        "signal" => done(unsafe { libc::kill(number as i32, libc::SIGTERM) }.into()),
        "ptrace" => done(unsafe {
            libc::ptrace(
                libc::PTRACE_SEIZE,
                number as i32,
                std::ptr::null_mut::<u8>(),
                std::ptr::null_mut::<u8>(),
            )
        }),
        "vm-write" => vm_write(number as i32),
        "pidfd-getfd" => {
            let pidfd = call(libc::SYS_pidfd_open, [number, 0, 0, 0, 0])?;
            call(libc::SYS_pidfd_getfd, [pidfd, 0, 0, 0, 0]).map(drop)
        }
        "priority" => done(unsafe { libc::setpriority(libc::PRIO_PROCESS, number as u32, 19) }.into()),
        "affinity" => {
            let set = 1u64;
            call(libc::SYS_sched_setaffinity, [number, 8, (&raw const set) as i64, 0, 0]).map(drop)
        }
        "prlimit" => {
            let limit = [1u64, 1u64];
            call(libc::SYS_prlimit64, [number, 7, (&raw const limit) as i64, 0, 0]).map(drop)
        }
        "unix" => unix(libc::SOCK_STREAM, first),
        "unix-pair" => {
            let mut pair = [0; 2];
            done(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, pair.as_mut_ptr()) }.into())
        }
        "tcp" => std::net::TcpStream::connect(("127.0.0.1", port)).map(drop),
        "tcp6" => std::net::TcpStream::connect(("::1", port)).map(drop),
        "fast-open" => fast_open(port),
        "bind" => std::net::TcpListener::bind(("127.0.0.1", 0)).map(drop),
        "listen" => {
            let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
            done(unsafe { libc::listen(fd, 1) }.into())
        }
        "udp" => socket(libc::AF_INET, libc::SOCK_DGRAM, 0).map(drop),
        "icmp" => socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP).map(drop),
        "raw" => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).map(drop),
        "mptcp" => socket(libc::AF_INET, libc::SOCK_STREAM, 262).map(drop),
        "packet" => socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map(drop),
        "vsock" => socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0).map(drop),
        "netfilter" => socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER).map(drop),
        "netlink-route" => socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE).map(drop),
        "unshare-user" => call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0]).map(drop),
        "clone-user" => clone_user(),
        "call" => call(number, [0, 0, 0, 0, 0]).map(drop),
        "dumpable-root" => {
            // Nothing that was root's before is root's again.
            let uid = unsafe { libc::setuid(0) };
            done(uid.into())
        }
        "log-clear" => call(libc::SYS_syslog, [5, 0, 0, 0, 0]).map(drop),
        "log-read" => {
            let mut buffer = vec![0u8; 1 << 16];
            call(libc::SYS_syslog, [3, buffer.as_mut_ptr() as i64, buffer.len() as i64, 0, 0]).map(drop)
        }
        other => panic!("nobody knows how to try {other}"),
    }
}

fn done(result: i64) -> Result<()> {
    if result >= 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

fn call(number: i64, with: [i64; 5]) -> Result<i64> {
    let [a, b, c, d, e] = with;
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    done(result).map(|()| result)
}

fn socket(family: i32, kind: i32, protocol: i32) -> Result<i32> {
    let fd = unsafe { libc::socket(family, kind, protocol) };
    done(fd.into()).map(|()| fd)
}

fn unix(kind: i32, path: &str) -> Result<()> {
    let fd = socket(libc::AF_UNIX, kind, 0)?;
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from as libc::c_char;
    }
    let size = size_of::<libc::sockaddr_un>() as u32;
    done(unsafe { libc::connect(fd, (&raw const address).cast(), size) }.into())
}

fn fast_open(port: u16) -> Result<()> {
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    to.sin_family = libc::AF_INET as u16;
    to.sin_port = port.to_be();
    to.sin_addr.s_addr = u32::from(std::net::Ipv4Addr::LOCALHOST).to_be();
    let size = size_of::<libc::sockaddr_in>() as u32;
    let sent = unsafe {
        libc::sendto(fd, c"x".as_ptr().cast(), 1, libc::MSG_FASTOPEN, (&raw const to).cast(), size)
    };
    done(sent as i64)
}

fn vm_write(pid: i32) -> Result<()> {
    let byte = 0u8;
    let local = libc::iovec { iov_base: (&raw const byte) as *mut libc::c_void, iov_len: 1 };
    let remote = libc::iovec { iov_base: 0x1000 as *mut libc::c_void, iov_len: 1 };
    done(unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) } as i64)
}

fn by_handle(path: &Path) -> Result<()> {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        handle: [u8; 128],
    }
    let mut handle = Handle { bytes: 128, kind: 0, handle: [0; 128] };
    let mut mount = 0i32;
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let named = [
        i64::from(libc::AT_FDCWD),
        path.as_ptr() as i64,
        (&raw mut handle) as i64,
        (&raw mut mount) as i64,
        0,
    ];
    // Without a handle there is no way in either; the answer must then be the second call's all the same.
    let _ = call(libc::SYS_name_to_handle_at, named);
    let root = std::fs::File::open("/")?;
    use std::os::fd::AsRawFd as _;
    call(libc::SYS_open_by_handle_at, [root.as_raw_fd().into(), (&raw mut handle) as i64, 0, 0, 0]).map(drop)
}

fn clone_user() -> Result<()> {
    let flags = i64::from(libc::CLONE_NEWUSER) | i64::from(libc::SIGCHLD);
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        unsafe { libc::_exit(0) }
    }
    done(pid)
}
