//! The expression language: CEL, checked before it runs and bounded while it does.

/// A checked expression.
#[derive(Clone, Debug)]
pub struct Expr {
    source: String,
}

impl Expr {
    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }
}
