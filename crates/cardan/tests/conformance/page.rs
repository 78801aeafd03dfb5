//! The table as Markdown.

use std::fmt::Write as _;

use crate::table::{Behaviour, Cell, Cells, Found};

const HEAD: &str = "# Conformance

Each cell is a check that was run: a plugin in WebAssembly is loaded, asked at the hook, and its verdict compared, edits applied. `pass` means
that it was as expected. `cannot` means that there can be no such thing, and says why. `cargo xtask conformance` writes this page, and
tests fail where it is not what is found (`crates/cardan/tests/conformance`).

| row | what is seen |
|---|---|
";

pub(crate) fn render(found: &Found) -> String {
    let mut page = HEAD.to_owned();
    for behaviour in Behaviour::ALL {
        writeln!(page, "| {} | {} |", behaviour.name(), behaviour.meaning()).unwrap();
    }
    let mut notes = Vec::new();
    for cells in &found.0 {
        family(&mut page, cells, &mut notes);
    }
    page.push_str("\n## Why not\n\n");
    for (index, note) in notes.iter().enumerate() {
        writeln!(page, "{}. {note}", index + 1).unwrap();
    }
    page
}

fn family(page: &mut String, (family, columns): &Cells, notes: &mut Vec<&'static str>) {
    write!(page, "\n## {}\n\n{}\n\n|", family.title, family.guests).unwrap();
    for column in &family.columns {
        write!(page, " | {}, `{}`", column.convention, column.hook).unwrap();
    }
    page.push_str(" |\n|---");
    page.push_str(&"|---".repeat(family.columns.len()));
    page.push_str("|\n");
    for (row, behaviour) in Behaviour::ALL.into_iter().enumerate() {
        write!(page, "| {}", behaviour.name()).unwrap();
        for column in columns {
            match &column[row] {
                Ok(Cell::Pass) => page.push_str(" | pass"),
                Ok(Cell::Cannot(why)) => {
                    let number = notes.iter().position(|note| note == why).unwrap_or_else(|| {
                        notes.push(why);
                        notes.len() - 1
                    });
                    write!(page, " | cannot ({})", number + 1).unwrap();
                }
                Err(_) => page.push_str(" | FAIL"),
            }
        }
        page.push_str(" |\n");
    }
}
