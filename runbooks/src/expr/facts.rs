//! What a host can be asked, in one table.
//!
//! Whoever reads facts answers a [`FactCall`] with a map that has exactly the fields of its row here (a log, with the one
//! value that was asked for), or with the reason why it cannot be read; a fact that cannot be read is an error, never a
//! zero. A field that may have no value is null then. Lists are bounded by whoever reads.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use crate::value::{Type, Value};

/// A question to the host, with its arguments: `disk("/var")`. Compares by that text.
#[derive(Clone, Debug)]
pub struct FactCall {
    /// What is asked.
    pub fact: FactKind,
    /// Its arguments, evaluated, as many as it has parameters.
    pub args: Vec<Value>,
}

/// The answers, by the text of the call; an error is the reason why it cannot be read.
pub type Facts = BTreeMap<String, Result<Value, String>>;

impl fmt::Display for FactCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fact.name())?;
        let args: Vec<String> = self.args.iter().map(Value::literal).collect();
        match (args.as_slice(), self.fact.question()) {
            ([], _) => Ok(()),
            (args, None) => write!(f, "({})", args.join(", ")),
            ([first, rest @ ..], Some(question)) => write!(f, "({first}).{question}({})", rest.join(", ")),
        }
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
    /// Files that processes have open, by the directory they are below.
    OpenFiles,
    /// A unit of systemd, by its name.
    Unit,
    /// Whether something answers at `address:port`.
    Tcp,
    /// A file, by its path.
    File,
    /// Lines of a log, by its path or by the unit that wrote them.
    Log(Question),
}

/// What a log is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Whether a line matches.
    Matches,
    /// How many lines match.
    Count,
    /// The newest line that matches; empty if none does.
    Last,
}

/// What a fact may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param {
    /// Any text.
    Text,
    /// A pattern, written out.
    Pattern,
    /// A length of time.
    Length,
}

impl FactKind {
    /// Every fact.
    pub const ALL: [FactKind; 12] = [
        FactKind::Disk,
        FactKind::Memory,
        FactKind::Cpu,
        FactKind::Load,
        FactKind::Processes,
        FactKind::OpenFiles,
        FactKind::Unit,
        FactKind::Tcp,
        FactKind::File,
        FactKind::Log(Question::Matches),
        FactKind::Log(Question::Count),
        FactKind::Log(Question::Last),
    ];

    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            FactKind::Disk => "disk",
            FactKind::Memory => "memory",
            FactKind::Cpu => "cpu",
            FactKind::Load => "load",
            FactKind::Processes => "processes",
            FactKind::OpenFiles => "open_files",
            FactKind::Unit => "unit",
            FactKind::Tcp => "tcp",
            FactKind::File => "file",
            FactKind::Log(_) => "log",
        }
    }

    /// The question put to it after a dot, where there is one: `log(target).matches(…)`.
    pub fn question(self) -> Option<&'static str> {
        match self {
            FactKind::Log(Question::Matches) => Some("matches"),
            FactKind::Log(Question::Count) => Some("count"),
            FactKind::Log(Question::Last) => Some("last"),
            FactKind::Disk
            | FactKind::Memory
            | FactKind::Cpu
            | FactKind::Load
            | FactKind::Processes
            | FactKind::OpenFiles
            | FactKind::Unit
            | FactKind::Tcp
            | FactKind::File => None,
        }
    }

    /// The fact of that name; of several questions the first.
    pub fn named(name: &str) -> Option<FactKind> {
        FactKind::ALL.into_iter().find(|fact| fact.name() == name)
    }

    /// The fact of that name that is asked this.
    pub(crate) fn asked(name: &str, question: &str) -> Option<FactKind> {
        FactKind::ALL.into_iter().find(|fact| fact.name() == name && fact.question() == Some(question))
    }

    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        let first = |fact: &FactKind| FactKind::named(fact.name()) == Some(*fact);
        FactKind::ALL.into_iter().filter(first).map(FactKind::name)
    }

    /// Its parameters. A fact without any is written without parentheses.
    pub fn params(self) -> &'static [(&'static str, Param)] {
        match self {
            FactKind::Disk => &[("mount", Param::Text)],
            FactKind::Processes | FactKind::Unit => &[("name", Param::Text)],
            FactKind::Tcp => &[("address", Param::Text)],
            FactKind::File | FactKind::OpenFiles => &[("path", Param::Text)],
            FactKind::Log(_) => {
                &[("target", Param::Text), ("pattern", Param::Pattern), ("since", Param::Length)]
            }
            FactKind::Memory | FactKind::Cpu | FactKind::Load => &[],
        }
    }

    /// How it is written, with the names of its parameters.
    pub fn form(self) -> String {
        let params: Vec<&str> = self.params().iter().map(|(name, _)| *name).collect();
        let name = self.name();
        match (params.as_slice(), self.question()) {
            ([], _) => name.to_owned(),
            (params, None) => format!("{name}({})", params.join(", ")),
            ([first, rest @ ..], Some(question)) => {
                format!("{name}({first}).{question}({})", rest.join(", "))
            }
        }
    }

    /// The fields of the answer, and their types. The answer to a question has none.
    pub fn fields(self) -> &'static [(&'static str, FieldType)] {
        use FieldType::{Bool, Int, Ints, Number, Records, Text};
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
                ("swap_total_bytes", Int),
                ("swap_used_percent", Number),
                ("pressure_some_percent", Number),
                ("pressure_full_percent", Number),
            ],
            FactKind::Cpu => &[("used_percent", Number), ("cores", Int)],
            FactKind::Load => &[("one", Number), ("five", Number), ("fifteen", Number)],
            FactKind::Processes => &[
                ("count", Int),
                ("pids", Ints),
                ("oldest_seconds", Int),
                ("memory_bytes", Int),
                ("all", Records(PROCESS)),
            ],
            FactKind::OpenFiles => &[
                ("count", Int),
                ("pids", Ints),
                ("processes", Records(HOLDER)),
                ("deleted_count", Int),
                ("deleted_bytes", Int),
                ("deleted", Records(DELETED)),
                ("hidden", Int),
            ],
            FactKind::Unit => UNIT,
            FactKind::Tcp => &[("open", Bool), ("connect_ms", Int)],
            FactKind::File => &[
                ("exists", Bool),
                ("size", Int),
                ("mode", Text),
                ("age_seconds", Int),
                ("is_dir", Bool),
                ("owner_uid", Int),
            ],
            FactKind::Log(_) => &[],
        }
    }

    /// The type of the answer.
    pub fn ty(self) -> Type {
        match self {
            FactKind::Log(Question::Matches) => Type::Bool,
            FactKind::Log(Question::Count) => Type::Int,
            FactKind::Log(Question::Last) => Type::String,
            FactKind::Disk
            | FactKind::Memory
            | FactKind::Cpu
            | FactKind::Load
            | FactKind::Processes
            | FactKind::OpenFiles
            | FactKind::Unit
            | FactKind::Tcp
            | FactKind::File => record(self.fields()),
        }
    }
}

/// A process of a name.
const PROCESS: &[(&str, FieldType)] = &[
    ("pid", FieldType::Int),
    ("parent_pid", FieldType::Int),
    ("name", FieldType::Text),
    ("unit", FieldType::Text),
    ("uid", FieldType::Int),
    ("age_seconds", FieldType::Int),
    ("memory_bytes", FieldType::Int),
    ("descriptors", FieldType::Int),
    ("state", FieldType::Text),
];

/// A process that has files open.
const HOLDER: &[(&str, FieldType)] = &[
    ("pid", FieldType::Int),
    ("name", FieldType::Text),
    ("unit", FieldType::Text),
    ("files", FieldType::Int),
];

/// A file that is deleted and still open.
const DELETED: &[(&str, FieldType)] = &[
    ("pid", FieldType::Int),
    ("name", FieldType::Text),
    ("unit", FieldType::Text),
    ("path", FieldType::Text),
    ("bytes", FieldType::Int),
    ("uid", FieldType::Int),
    ("process_uid", FieldType::Int),
];

const UNIT: &[(&str, FieldType)] = &[
    ("exists", FieldType::Bool),
    ("load_state", FieldType::Text),
    ("active_state", FieldType::Text),
    ("sub_state", FieldType::Text),
    ("active", FieldType::Bool),
    ("failed", FieldType::Bool),
    ("result", FieldType::Text),
    ("main_pid", FieldType::Int),
    ("restarts", FieldType::Int),
    ("active_seconds", FieldType::Int),
    ("exit_status", FieldType::Int),
    ("enabled", FieldType::Text),
    ("can_reload", FieldType::Bool),
    ("can_restart", FieldType::Bool),
    ("memory_bytes", FieldType::Int),
    ("description", FieldType::Text),
];

fn record(fields: &[(&str, FieldType)]) -> Type {
    Type::Record(fields.iter().map(|(name, ty)| ((*name).to_owned(), ty.ty())).collect())
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
    /// A list of records that have these fields.
    Records(&'static [(&'static str, FieldType)]),
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
            FieldType::Records(fields) => Type::List(Box::new(record(fields))),
            FieldType::Text => Type::String,
        }
    }
}
