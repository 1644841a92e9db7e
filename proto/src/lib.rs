//! What travels between the parts, and what gets signed.

/// Messages and services of `fettle.v1`, generated from the `.proto` files beside this crate.
#[allow(missing_docs, clippy::all, reason = "generated; the comments are those of the .proto files")]
pub mod v1 {
    tonic::include_proto!("fettle.v1");
}
