//! Compiles the `.proto` files without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["fettle/v1/trust.proto", "fettle/v1/agents.proto", "fettle/v1/operators.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::Codec")
        // Decoded by hand, because they count.
        .extern_path(".fettle.v1.Hello", "crate::hello::Hello")
        .extern_path(".fettle.v1.Reports", "crate::reports::Reports")
        .extern_path(".fettle.v1.ToldAgain", "crate::reports::ToldAgain")
        .compile_fds(protox::compile(files, ["."])?)?;
    Ok(())
}
