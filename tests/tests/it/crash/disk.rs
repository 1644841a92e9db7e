//! No space left.
