//! Entry.

fn main() {
    fettle_agent::shim_if_asked();
}
