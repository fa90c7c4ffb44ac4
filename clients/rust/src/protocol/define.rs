//! One definition of a type gives the type, its place on the wire and its JSON form.

/// Defines structs and enums of the protocol. The number before a variant is its number on the
/// wire. `nested` before `enum` counts how deep its values lie inside each other.
macro_rules! define {
    () => {};

    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)?
        }
        $($rest:tt)*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type),*
        }

        impl $crate::protocol::wire::Wire for $name {
            fn encode(&self, out: &mut $crate::protocol::wire::Writer<'_>) {
                $($crate::protocol::wire::Wire::encode(&self.$field, out);)*
            }

            fn decode(
                input: &mut $crate::protocol::wire::Reader<'_>,
            ) -> Result<Self, $crate::protocol::wire::Violation> {
                Ok(Self { $($field: $crate::protocol::wire::Wire::decode(input)?),* })
            }
        }

        define! { $($rest)* }
    };

    (
        $(#[$meta:meta])*
        pub nested enum $name:ident { $($variants:tt)* }
        $($rest:tt)*
    ) => {
        define! { @enum (nested) [$(#[$meta])*] $name { $($variants)* } }
        define! { $($rest)* }
    };

    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($variants:tt)* }
        $($rest:tt)*
    ) => {
        define! { @enum (flat) [$(#[$meta])*] $name { $($variants)* } }
        define! { $($rest)* }
    };

    (@enum ($mode:ident) [$($meta:tt)*] $name:ident {
        $(
            $(#[$variant_meta:meta])*
            $number:literal $variant:ident
                $(($inner:ident: $inner_type:ty))?
                $({ $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? })?
        ),* $(,)?
    }) => {
        $($meta)*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $(
                $(#[$variant_meta])*
                $variant $(($inner_type))? $({ $($(#[$field_meta])* $field: $type),* })?
            ),*
        }

        impl $name {
            /// The names of the variants, and their numbers on the wire.
            pub const VARIANTS: &'static [(&'static str, u32)] =
                &[$((stringify!($variant), $number)),*];

            /// The number of the variant on the wire.
            pub fn number(&self) -> u8 {
                match self {
                    $(Self::$variant $((define!(@any $inner)))? $({ $($field: _),* })? => $number),*
                }
            }
        }

        impl $crate::protocol::wire::Wire for $name {
            fn encode(&self, out: &mut $crate::protocol::wire::Writer<'_>) {
                match self {
                    $(Self::$variant $(($inner))? $({ $($field),* })? => {
                        out.variant($number);
                        $($crate::protocol::wire::Wire::encode($inner, out);)?
                        $($($crate::protocol::wire::Wire::encode($field, out);)*)?
                    })*
                }
            }

            fn decode(
                input: &mut $crate::protocol::wire::Reader<'_>,
            ) -> Result<Self, $crate::protocol::wire::Violation> {
                define!(@$mode input, {
                    match input.variant()? {
                        $($number => {
                            $(let $inner = $crate::protocol::wire::Wire::decode(input)?;)?
                            $($(let $field = $crate::protocol::wire::Wire::decode(input)?;)*)?
                            Ok(Self::$variant $(($inner))? $({ $($field),* })?)
                        })*
                        _ => Err($crate::protocol::wire::Violation::malformed(
                            concat!("unknown variant of ", stringify!($name)),
                        )),
                    }
                })
            }
        }
    };

    (@any $inner:ident) => { _ };
    (@flat $input:ident, $body:block) => { $body };
    (@nested $input:ident, $body:block) => { $input.nested(|$input| $body) };
}
