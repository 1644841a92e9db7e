//! Who a step is: a user of its own, without groups, without capabilities, without a way to get any.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

/// The highest capability there could be.
const LAST: u32 = 63;

/// Makes a pipe the step's: otherwise it could not open `/dev/stderr`. Anything else stays whose it is.
pub(super) fn give(pipe: impl AsFd, uid: u32) -> io::Result<()> {
    if FileType::from_raw_mode(fstat(&pipe)?.st_mode) != FileType::Fifo {
        return Ok(());
    }
    Ok(fchown(pipe, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))?)
}

/// Becomes that user, for good. With `read_all` it may still read every file and the kernel's log.
pub(super) fn become_reader(uid: u32, read_all: bool) -> io::Result<()> {
    let keep = if read_all {
        CapabilitySet::DAC_READ_SEARCH | CapabilitySet::SYSLOG
    } else {
        CapabilitySet::empty()
    };
    rustix::thread::set_thread_groups(&[])?;
    bind(keep)?;
    // Per thread for the kernel, and this process has one.
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    hold(keep)
}

/// Keeps the user and gives up what it may beyond others, should it be root.
pub(super) fn give_up() -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        bind(CapabilitySet::empty())?;
    }
    hold(CapabilitySet::empty())
}

/// No capability but these is ever had again: being root means nothing, and changing the user changes none.
fn bind(keep: CapabilitySet) -> io::Result<()> {
    for number in 0..=LAST {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break, // this kernel knows no more
            Err(error) => return Err(error.into()),
        }
    }
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED,
    )?;
    Ok(())
}

fn hold(keep: CapabilitySet) -> io::Result<()> {
    set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable: keep })?;
    for capability in keep.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}
