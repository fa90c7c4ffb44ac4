//! Statements that were described before: how their columns are asked for. With it a statement
//! takes one round trip, without it two.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Statements that are remembered; when there are more, all are forgotten.
const MOST: usize = 256;

/// How the columns of a result are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Formats {
    /// All in binary.
    Binary,
    /// One by one; true = binary.
    Each(Box<[bool]>),
}

impl Formats {
    /// The formats of these columns.
    pub(super) fn of(columns: &[bool]) -> Self {
        match columns.iter().all(|binary| *binary) {
            true => Self::Binary,
            false => Self::Each(columns.into()),
        }
    }

    /// Appends them as Bind wants them.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let mut number = |n: u16| out.extend_from_slice(&n.to_be_bytes());
        match self {
            Self::Binary => {
                number(1);
                number(1);
            }
            Self::Each(columns) => {
                number(u16::try_from(columns.len()).unwrap_or(u16::MAX));
                columns.iter().for_each(|binary| number(u16::from(*binary)));
            }
        }
    }
}

/// The memory of one connection.
#[derive(Default)]
pub(super) struct Known(HashMap<u64, Formats>);

/// What a statement is known by. Two that share it would only be asked for in a form that costs an
/// error, after which it is forgotten.
pub(super) fn key(sql: &str, types: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    sql.hash(&mut hasher);
    types.hash(&mut hasher);
    hasher.finish()
}

impl Known {
    pub(super) fn get(&self, key: u64) -> Option<&Formats> {
        self.0.get(&key)
    }

    pub(super) fn learn(&mut self, key: u64, formats: Formats) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(key, formats);
    }

    pub(super) fn forget(&mut self, key: u64) {
        self.0.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let bytes = |columns: &[bool]| {
            let mut out = Vec::new();
            Formats::of(columns).put(&mut out);
            out
        };
        assert_eq!(bytes(&[]), [0, 1, 0, 1]);
        assert_eq!(bytes(&[true, true]), [0, 1, 0, 1]);
        assert_eq!(bytes(&[true, false]), [0, 2, 0, 1, 0, 0]);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut known = Known::default();
        for n in 0..1000 {
            known.learn(n, Formats::Binary);
            assert!(known.0.len() <= MOST);
        }
        assert_ne!(key("a", &[1]), key("a", &[]));
    }
}
