//! A deserializer around another one: it counts what the message takes in memory and how deep its
//! values lie inside each other, as [`Reader`](crate::protocol::Reader) does for bincode, and
//! believes no count. A field that does not exist is refused, not passed over.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::super::wire::{MAX_DECODED, MAX_NESTING, Violation};
use super::too_large;

/// What one message may still take.
pub(super) struct Budget {
    memory: Cell<usize>,
    depth: Cell<usize>,
    exceeded: Cell<Option<&'static str>>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { memory: Cell::new(MAX_DECODED), depth: Cell::new(0), exceeded: Cell::new(None) }
    }
}

impl Budget {
    /// Why a message was refused: a limit, or else what is wrong with the bytes.
    pub(super) fn violation(&self, otherwise: &'static str) -> Violation {
        self.exceeded.get().map_or(Violation::malformed(otherwise), too_large)
    }

    fn claim<E: Error>(&self, bytes: usize) -> Result<(), E> {
        match self.memory.get().checked_sub(bytes) {
            Some(left) => {
                self.memory.set(left);
                Ok(())
            }
            None => self.exceed("the message takes more than 64 MiB when it is decoded"),
        }
    }

    fn nest<E: Error>(&self) -> Result<(), E> {
        // The outermost value lies inside none.
        if self.depth.get() > MAX_NESTING {
            return self.exceed("values are nested deeper than 32 levels");
        }
        self.depth.set(self.depth.get() + 1);
        Ok(())
    }

    fn exceed<E: Error>(&self, text: &'static str) -> Result<(), E> {
        self.exceeded.set(Some(text));
        Err(E::custom(text))
    }
}

/// Something of serde's with a budget.
pub(super) struct Limited<'b, T> {
    inner: T,
    budget: &'b Budget,
    /// Memory on the heap that it takes itself.
    claims: usize,
}

impl<'b, T> Limited<'b, T> {
    pub(super) fn new(inner: T, budget: &'b Budget) -> Self {
        Self { inner, budget, claims: 0 }
    }

    fn around<U>(&self, inner: U) -> Limited<'b, U> {
        Limited::new(inner, self.budget)
    }
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(
            self,
            $($argument: $type,)*
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            let visitor = self.around(visitor);
            self.inner.$method($($argument,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Limited<'_, D> {
    type Error = D::Error;

    forward! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32()
        deserialize_i64() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64()
        deserialize_f32() deserialize_f64() deserialize_char() deserialize_str()
        deserialize_string() deserialize_bytes() deserialize_byte_buf() deserialize_option()
        deserialize_unit() deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str) deserialize_seq()
        deserialize_tuple(len: usize) deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.around(visitor);
        if name != "Value" {
            return self.inner.deserialize_enum(name, variants, visitor);
        }
        self.budget.nest()?;
        let value = self.inner.deserialize_enum(name, variants, visitor);
        self.budget.depth.set(self.budget.depth.get() - 1);
        value
    }

    /// The name of a field or variant, of which nothing is kept.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_identifier(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(D::Error::custom("a field that does not exist"))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $type:ty),*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Limited<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_f32: f32,
        visit_f64: f64, visit_char: char
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        self.budget.claim(text.len())?;
        self.inner.visit_str(text)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<V::Value, E> {
        self.budget.claim(text.len())?;
        self.inner.visit_borrowed_str(text)
    }

    fn visit_string<E: Error>(self, text: String) -> Result<V::Value, E> {
        self.budget.claim(text.len())?;
        self.inner.visit_string(text)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<V::Value, E> {
        self.budget.claim(bytes.len())?;
        self.inner.visit_bytes(bytes)
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<V::Value, E> {
        self.budget.claim(bytes.len())?;
        self.inner.visit_borrowed_bytes(bytes)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<V::Value, D::Error> {
        let input = self.around(input);
        self.inner.visit_some(input)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<V::Value, D::Error> {
        let input = self.around(input);
        self.inner.visit_newtype_struct(input)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, input: A) -> Result<V::Value, A::Error> {
        let input = self.around(input);
        self.inner.visit_seq(input)
    }

    fn visit_map<A: MapAccess<'de>>(self, input: A) -> Result<V::Value, A::Error> {
        let input = self.around(input);
        self.inner.visit_map(input)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, input: A) -> Result<V::Value, A::Error> {
        let input = self.around(input);
        self.inner.visit_enum(input)
    }
}

/// A list. How long it says it is, is not passed on: nothing is reserved for what did not come.
impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Limited<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        let mut seed = self.around(seed);
        seed.claims = size_of::<T::Value>();
        self.inner.next_element_seed(seed)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Limited<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let seed = self.around(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.next_value_seed(seed)
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Limited<'_, T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<T::Value, D::Error> {
        self.budget.claim(self.claims)?;
        let input = self.around(input);
        self.inner.deserialize(input)
    }
}

impl<'b, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Limited<'b, A> {
    type Error = A::Error;
    type Variant = Limited<'b, A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        let seed = self.around(seed);
        let budget = self.budget;
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Limited::new(variant, budget)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Limited<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
