//! Rows, columns, and running them.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a plugin may do, or have done to it: the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Continue,
    EditHead,
    EditBody,
    Stop,
    VisitState,
    CallState,
    Capability,
    Denied,
    Trap,
    Deadline,
    Memory,
    Garbage,
    Unicode,
    Empty,
    Large,
}

impl Behaviour {
    pub(crate) const ALL: [Self; 15] = [
        Self::Continue,
        Self::EditHead,
        Self::EditBody,
        Self::Stop,
        Self::VisitState,
        Self::CallState,
        Self::Capability,
        Self::Denied,
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::Garbage,
        Self::Unicode,
        Self::Empty,
        Self::Large,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::EditHead => "edit head",
            Self::EditBody => "edit body",
            Self::Stop => "stop with an answer",
            Self::VisitState => "state in a visit",
            Self::CallState => "state across calls",
            Self::Capability => "capability use",
            Self::Denied => "denied capability",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Garbage => "garbage",
            Self::Unicode => "unicode",
            Self::Empty => "empty",
            Self::Large => "10 MB",
        }
    }

    /// What has to be seen for a cell to pass.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Continue => "goes on, and nothing is changed",
            Self::EditHead => "header fields are set and removed, and others stay",
            Self::EditBody => "the body, or the statement, is another one",
            Self::Stop => "answers in the host's place, and refuses, as far as there are words for it",
            Self::VisitState => {
                "an instance of the mode `visit` finds its memory again at the next question, and none of another visit"
            }
            Self::CallState => {
                "instances of the mode `shared` keep their memory from call to call, those of the mode `fresh` do not"
            }
            Self::Capability => "what was granted can be used: what is stored can be read again",
            Self::Denied => "the same without a grant is the fault `denied`",
            Self::Trap => "the fault `trap`; the next question is answered",
            Self::Deadline => "the fault `deadline`; the next question is answered",
            Self::Memory => "the fault `memory`; the next question is answered",
            Self::Garbage => "what is no answer is the fault `protocol`",
            Self::Unicode => "text beyond ASCII and beyond the basic plane comes in and goes out",
            Self::Empty => {
                "an empty body, statement or text in, and an empty one out where anything comes out"
            }
            Self::Large => {
                "ten million bytes in, and as many out where anything comes out; instances may have 256 MiB for it"
            }
        }
    }
}

/// What has become of a cell whose check did not panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    Pass,
    /// There can be no such thing: why.
    Cannot(&'static str),
}

/// A convention at a hook.
pub(crate) struct Column {
    pub(crate) convention: &'static str,
    pub(crate) hook: &'static str,
    /// Runs a cell. A panic says what was expected and what was found.
    pub(crate) check: Box<dyn Fn(Behaviour) -> Cell + Send + Sync>,
}

impl Column {
    pub(crate) fn new(
        convention: &'static str,
        hook: &'static str,
        check: impl Fn(Behaviour) -> Cell + Send + Sync + 'static,
    ) -> Self {
        Self { convention, hook, check: Box::new(check) }
    }
}

/// Columns of one dialect, or of the typed worlds of one system.
pub(crate) struct Family {
    pub(crate) title: &'static str,
    /// Which guests stand for it.
    pub(crate) guests: &'static str,
    pub(crate) columns: Vec<Column>,
}

/// A family, and what came of its cells: a column after another.
pub(crate) type Cells = (Family, Vec<Vec<Result<Cell, String>>>);

pub(crate) struct Found(pub(crate) Vec<Cells>);

pub(crate) fn run(families: Vec<Family>) -> Found {
    let cells = |family: &Family| family.columns.iter().map(column).collect();
    Found(
        families.into_iter().map(|family| (cells(&family), family)).map(|(cells, it)| (it, cells)).collect(),
    )
}

fn column(column: &Column) -> Vec<Result<Cell, String>> {
    let cell = |behaviour| {
        catch_unwind(AssertUnwindSafe(|| (column.check)(behaviour))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let why = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked without a word");
            format!("{} at {}, {}: {why}", column.convention, column.hook, behaviour.name())
        })
    };
    Behaviour::ALL.into_iter().map(cell).collect()
}

impl Found {
    pub(crate) fn failures(&self) -> Vec<String> {
        let cells = self.0.iter().flat_map(|(_, columns)| columns.iter().flatten());
        cells.filter_map(|cell| cell.clone().err()).collect()
    }
}
