//! Text in which `${{ … }}` stands for a value.

/// Checked text with values in it.
#[derive(Clone, Debug)]
pub struct Template {
    source: String,
}

impl Template {
    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }
}
