//! Where in the file a character of an expression stands.

/// A place in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// In bytes, from 0.
    pub offset: usize,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// The text of a scalar and the places its lines came from.
#[derive(Clone, Debug)]
pub(crate) struct Mapped {
    /// The scalar's value.
    pub(crate) text: String,
    /// For each line of the value: its first byte, and where that stands in the file. Never empty, and the first is at 0.
    pub(crate) lines: Vec<(usize, At)>,
    /// Whether characters of the value map one to one; if not, everything is at the scalar's begin.
    pub(crate) exact: bool,
}

impl Mapped {
    /// Text whose first character stands at the beginning of a file.
    #[cfg(test)]
    pub(crate) fn bare(text: &str) -> Mapped {
        let mut lines = vec![(0, At { offset: 0, line: 1, column: 1 })];
        for (at, _) in text.match_indices('\n') {
            lines.push((at + 1, At { offset: at + 1, line: lines.len() + 1, column: 1 }));
        }
        Mapped { text: text.to_owned(), lines, exact: true }
    }

    pub(crate) fn source(&self) -> Source<'_> {
        Source { whole: self, from: 0, to: self.text.len() }
    }
}

/// A part of a scalar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    whole: &'a Mapped,
    from: usize,
    to: usize,
}

impl<'a> Source<'a> {
    pub(crate) fn text(&self) -> &'a str {
        &self.whole.text[self.from..self.to]
    }

    /// A part of this part.
    pub(crate) fn slice(&self, from: usize, to: usize) -> Source<'a> {
        Source { whole: self.whole, from: self.from + from, to: self.from + to }
    }

    /// Where a byte of [`Source::text`] stands in the file.
    pub(crate) fn at(&self, offset: usize) -> At {
        let offset = (self.from + offset).min(self.whole.text.len());
        let line = self.whole.lines.partition_point(|(start, _)| *start <= offset).saturating_sub(1);
        let (start, at) = self.whole.lines[line];
        if !self.whole.exact {
            return self.whole.lines[0].1;
        }
        let within = &self.whole.text[start..offset];
        At { offset: at.offset + within.len(), line: at.line, column: at.column + within.chars().count() }
    }
}
