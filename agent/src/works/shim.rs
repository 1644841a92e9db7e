//! The supervisor of one attempt that acts: this program again, as a tiny process of its own.

/// Becomes a shim when this process was started as one, and then never returns. To be called first in `main`, before
/// there are threads, runtimes or buffers.
pub fn shim_if_asked() {}
