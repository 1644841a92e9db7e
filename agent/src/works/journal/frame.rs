//! Batches as bytes.
