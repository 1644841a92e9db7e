//! Tests of the host run.
