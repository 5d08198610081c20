//! Output for people and for machines.

use clap::ValueEnum;
use comfy_table::{Table, TableStyle};
use serde::Serialize;

/// The form of a command's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// A table for people
    #[default]
    Table,
    /// JSON for machines
    Json,
}

/// A table without lines, its heading in capitals.
pub(super) fn table(heading: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(heading.iter().map(|name| name.to_uppercase()));
    table
}

/// Prints a table without blanks at the ends of its lines.
pub(super) fn print_table(table: &Table) {
    for line in table.to_string().lines() {
        println!("{}", line.trim_end());
    }
}

/// Prints `value` as indented JSON.
pub(super) fn print_json(value: &impl Serialize) {
    println!("{}", serde_json::to_string_pretty(value).expect("our own output types always serialise"));
}
