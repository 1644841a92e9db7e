//! The tree as a runbook that may be wrong everywhere.
