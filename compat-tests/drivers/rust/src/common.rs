//! What the Rust programs share: the transcript, the cases, where the server is.

use std::path::Path;

use md5::{Digest, Md5};
use sqlx::Row;
use sqlx::postgres::PgRow;

/// An environment variable that the test sets.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

/// How many clients there are when there are many.
pub fn clients() -> usize {
    variable("DRIVER_CLIENTS").parse().unwrap()
}

/// The lines of a file that all programs share.
pub fn cases(name: &str) -> Vec<String> {
    let file = Path::new(&variable("DRIVER_CASES")).join(name);
    std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

/// Begins a part.
pub fn section(name: &str) {
    println!("--- {name}");
}

/// Stands for a value that is too long to show.
pub fn digest(data: &[u8]) -> String {
    format!("{} bytes, {:x?}", data.len(), Md5::digest(data))
}

/// A column of type text.
pub fn text(row: &PgRow, column: usize) -> String {
    row.get(column)
}

/// The time zone of a client.
pub fn zone(number: usize) -> &'static str {
    ["UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York"][number % 4]
}

/// The first schema of a client's search path.
pub fn schema_of(number: usize) -> &'static str {
    ["public", "other"][number % 2]
}
