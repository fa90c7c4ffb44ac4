//! JSON values as the parameters of a statement, and as fields that may be null or not there; times
//! as JSON.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::catalog::TypeInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::json;
use crate::session::Described;

/// A moment, as JSON has it.
pub fn timestamp(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The parameters as text, each as its type wants it.
pub fn bind(params: &[Box<RawValue>], described: &Described) -> Result<Vec<Option<Vec<u8>>>> {
    let (given, wanted) = (params.len(), described.parameters.len());
    if given != wanted {
        let text = format!("the statement has {wanted} parameters, params has {given}");
        return Err(Error::sql(b"08P01", text).with_kind(ErrorKind::ValidationError));
    }
    let pairs = params.iter().zip(&described.parameters).enumerate();
    pairs.map(|(at, (value, info))| bind_one(at + 1, value.get(), info)).collect()
}

fn bind_one(number: usize, json: &str, info: &TypeInfo) -> Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    match json::write_param(&mut text, json, &info.shape) {
        Ok(true) => Ok(Some(text)),
        Ok(false) => Ok(None),
        Err(e) => Err(Error::sql(b"22023", format!("parameter ${number} ({}): {e}", info.name))),
    }
}

/// Tells a null from a field that is not there: for `deserialize_with`, beside `default`.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    field: D,
) -> std::result::Result<Option<Option<T>>, D::Error> {
    Option::deserialize(field).map(Some)
}
