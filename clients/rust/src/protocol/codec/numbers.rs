//! Floating-point numbers in JSON, which has no infinities: those and NaN are texts there.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// `f32` and `f64`.
pub trait Real: Copy + Serialize + for<'de> Deserialize<'de> {
    /// The same, wide.
    fn wide(self) -> f64;

    /// The nearest one.
    fn narrow(wide: f64) -> Self;
}

impl Real for f32 {
    fn wide(self) -> f64 {
        self.into()
    }

    fn narrow(wide: f64) -> Self {
        wide as f32
    }
}

impl Real for f64 {
    fn wide(self) -> f64 {
        self
    }

    fn narrow(wide: f64) -> Self {
        wide
    }
}

/// Writes a number; as `NaN`, `Infinity` or `-Infinity` where that is no number of JSON.
///
/// # Errors
/// Those of the output.
pub fn serialize<R: Real, S: Serializer>(number: &R, output: S) -> Result<S::Ok, S::Error> {
    let wide = number.wide();
    if wide.is_finite() || !output.is_human_readable() {
        return number.serialize(output);
    }
    output.serialize_str(match wide {
        wide if wide.is_nan() => "NaN",
        wide if wide > 0.0 => "Infinity",
        _ => "-Infinity",
    })
}

/// Reads what [`serialize`] writes.
///
/// # Errors
/// Those of the input.
pub fn deserialize<'de, R: Real, D: Deserializer<'de>>(input: D) -> Result<R, D::Error> {
    match input.is_human_readable() {
        true => input.deserialize_any(Number(PhantomData)),
        false => R::deserialize(input),
    }
}

struct Number<R>(PhantomData<R>);

impl<R: Real> Visitor<'_> for Number<R> {
    type Value = R;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<R, E> {
        Ok(R::narrow(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<R, E> {
        Ok(R::narrow(number as f64))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<R, E> {
        Ok(R::narrow(number as f64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<R, E> {
        match text {
            "NaN" => Ok(R::narrow(f64::NAN)),
            "Infinity" => Ok(R::narrow(f64::INFINITY)),
            "-Infinity" => Ok(R::narrow(f64::NEG_INFINITY)),
            _ => Err(E::custom("neither a number nor one of its texts")),
        }
    }
}
