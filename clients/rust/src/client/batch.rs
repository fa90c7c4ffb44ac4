//! Many statements in one message.

use super::connection::{Options, Params, write_query};
use crate::protocol::wire::{Wire, Writer};

/// Statements that are sent together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Encoded already.
    statements: Vec<u8>,
    count: u64,
    is_atomic: bool,
    stops: bool,
}

impl Batch {
    /// No statements; each that is added commits alone, and an error does not keep the others from
    /// being run.
    pub fn new() -> Self {
        Self::default()
    }

    /// All statements in one transaction: the first error undoes everything.
    #[must_use]
    pub fn atomic(mut self) -> Self {
        self.is_atomic = true;
        self
    }

    /// The first error ends the batch; what was done before stays.
    #[must_use]
    pub fn stop_on_error(mut self) -> Self {
        self.stops = true;
        self
    }

    /// Adds a statement with its parameters. The server takes at most 1,000 of them.
    pub fn add(&mut self, sql: &str, params: &Params<'_>) -> &mut Self {
        let out = &mut Writer::new(&mut self.statements);
        write_query(out, sql, params, &Options::default());
        self.count += 1;
        self
    }

    /// How many statements there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) {
        out.unsigned(self.count);
        out.raw(&self.statements);
        self.is_atomic.encode(out);
        self.stops.encode(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Message, Query, Value, decode};

    #[test]
    fn a_batch_is_encoded_as_the_message() {
        let mut batch = Batch::new().atomic();
        batch.add("SELECT $1", &[&1i32]).add("SELECT 2", &[]);
        assert_eq!(batch.len(), 2);
        let mut bytes = Vec::new();
        let out = &mut Writer::new(&mut bytes);
        out.variant(super::super::replies::BATCH);
        batch.write(out);
        let query = |sql: &str, params| Query {
            sql: sql.into(),
            params,
            param_types: Vec::new(),
            options: None,
        };
        let statements = vec![query("SELECT $1", vec![Value::Int4(1)]), query("SELECT 2", vec![])];
        let expected = Message::Batch { statements, atomic: true, stop_on_error: false };
        assert_eq!(decode::<Message>(&bytes), Ok(expected));
    }
}
