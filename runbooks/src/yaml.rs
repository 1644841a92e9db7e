//! Bytes to a tree that knows where it stands.
