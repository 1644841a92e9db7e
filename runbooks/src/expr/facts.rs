//! What a host can be asked, in one table.
//!
//! Whoever reads facts answers a [`FactCall`] with a map that has exactly the fields of its row here, or with the reason
//! why it cannot be read; a fact that cannot be read is an error, never a zero.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use crate::value::{Type, Value};

/// A question to the host, with its arguments: `disk("/var")`. Compares by that text.
#[derive(Clone, Debug)]
pub struct FactCall {
    /// The fact's name.
    pub name: String,
    /// Its arguments, evaluated.
    pub args: Vec<Value>,
}

/// The answers, by the text of the call; an error is the reason why it cannot be read.
pub type Facts = BTreeMap<String, Result<Value, String>>;

impl fmt::Display for FactCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.args.is_empty() {
            return Ok(());
        }
        let args: Vec<String> = self.args.iter().map(Value::literal).collect();
        write!(f, "({})", args.join(", "))
    }
}

impl PartialEq for FactCall {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for FactCall {}

impl PartialOrd for FactCall {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FactCall {
    fn cmp(&self, other: &Self) -> Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

/// The facts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKind {
    /// A mounted filesystem, by its mount point.
    Disk,
    /// Main memory and swap.
    Memory,
    /// All processors together.
    Cpu,
    /// Load averages.
    Load,
    /// The processes of a name.
    Processes,
    /// Whether something answers at `address:port`.
    Tcp,
    /// A file, by its path.
    File,
}

impl FactKind {
    /// Every fact.
    pub const ALL: [FactKind; 7] = [
        FactKind::Disk,
        FactKind::Memory,
        FactKind::Cpu,
        FactKind::Load,
        FactKind::Processes,
        FactKind::Tcp,
        FactKind::File,
    ];

    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            FactKind::Disk => "disk",
            FactKind::Memory => "memory",
            FactKind::Cpu => "cpu",
            FactKind::Load => "load",
            FactKind::Processes => "processes",
            FactKind::Tcp => "tcp",
            FactKind::File => "file",
        }
    }

    /// The fact of that name.
    pub fn named(name: &str) -> Option<FactKind> {
        FactKind::ALL.into_iter().find(|fact| fact.name() == name)
    }

    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        FactKind::ALL.into_iter().map(FactKind::name)
    }

    /// Its parameters; every one is text. A fact without any is written without parentheses.
    pub fn params(self) -> &'static [&'static str] {
        match self {
            FactKind::Disk => &["mount"],
            FactKind::Processes => &["name"],
            FactKind::Tcp => &["address"],
            FactKind::File => &["path"],
            FactKind::Memory | FactKind::Cpu | FactKind::Load => &[],
        }
    }

    /// The fields of the answer, and their types.
    pub fn fields(self) -> &'static [(&'static str, FieldType)] {
        use FieldType::{Bool, Int, Ints, Number, Text};
        match self {
            FactKind::Disk => &[
                ("used_percent", Number),
                ("total_bytes", Int),
                ("used_bytes", Int),
                ("available_bytes", Int),
                ("inodes_used_percent", Number),
                ("fstype", Text),
                ("readonly", Bool),
            ],
            FactKind::Memory => &[
                ("total_bytes", Int),
                ("available_bytes", Int),
                ("used_percent", Number),
                ("swap_used_percent", Number),
            ],
            FactKind::Cpu => &[("used_percent", Number), ("cores", Int)],
            FactKind::Load => &[("one", Number), ("five", Number), ("fifteen", Number)],
            FactKind::Processes => {
                &[("count", Int), ("pids", Ints), ("oldest_seconds", Int), ("memory_bytes", Int)]
            }
            FactKind::Tcp => &[("open", Bool), ("connect_ms", Int)],
            FactKind::File => &[
                ("exists", Bool),
                ("size", Int),
                ("mode", Text),
                ("age_seconds", Int),
                ("is_dir", Bool),
                ("owner_uid", Int),
            ],
        }
    }

    /// The type of the answer.
    pub fn ty(self) -> Type {
        let fields = self.fields().iter().map(|(name, ty)| ((*name).to_owned(), ty.ty()));
        Type::Record(fields.collect())
    }
}

/// The type of a fact's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A list of whole numbers.
    Ints,
    /// A number.
    Number,
    /// Text. A file's mode is text in octal, `0644`.
    Text,
}

impl FieldType {
    /// The type an expression sees.
    pub fn ty(self) -> Type {
        match self {
            FieldType::Bool => Type::Bool,
            FieldType::Int => Type::Int,
            FieldType::Ints => Type::List(Box::new(Type::Int)),
            FieldType::Number => Type::Number,
            FieldType::Text => Type::String,
        }
    }
}
