//! Names with `*`.

use serde::Deserialize;

/// A name in which `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Glob(String);

impl Glob {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Glob {
        Glob(text.into())
    }

    /// Whether it fits the whole of `text`.
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let parts: Vec<&str> = parts.collect();
        let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
        for part in middle {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn a_star_stands_for_any_text_and_the_rest_for_itself() {
        for (glob, text, fits) in [
            ("host/*", "host/disk-full", true),
            ("host/*", "db/disk-full", false),
            ("*", "", true),
            ("web-*.eu", "web-1.eu", true),
            ("web-*.eu", "web-1.eu.example", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*a", "a", false),
            ("plain", "plain", true),
            ("plain", "plainer", false),
        ] {
            assert_eq!(Glob::new(glob).matches(text), fits, "{glob} {text}");
        }
    }
}
