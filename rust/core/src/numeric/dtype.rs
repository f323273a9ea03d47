//! The element types of the safetensors format, and the three types on which arithmetic is done.

use std::fmt;

/// The float types that the kernels read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Float {
    /// bfloat16: 8 exponent bits, 8 significant bits.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl Float {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// The same type as the file format names it.
    pub const fn dtype(self) -> Dtype {
        match self {
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
            Self::F32 => Dtype::F32,
        }
    }
}

macro_rules! dtypes {
    ($($name:ident = $text:literal, $bits:literal;)*) => {
        /// Every element type that a safetensors header may name.
        #[allow(missing_docs, non_camel_case_types, reason = "the names are the format's own")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Dtype { $($name,)* }

        impl Dtype {
            /// All of them, in the format's order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The type with this name in a header. Names are case-sensitive.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }

            /// Bits of one element.
            pub const fn bits(self) -> u64 {
                match self { $(Self::$name => $bits,)* }
            }

            /// The smallest number of bytes that is never split: the size of an element, or 1 if elements do not fill
            /// whole bytes.
            pub const fn unit(self) -> u64 {
                if self.bits().is_multiple_of(8) { self.bits() / 8 } else { 1 }
            }

            /// The name in a header.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

dtypes! {
    BOOL = "BOOL", 8;
    F4 = "F4", 4;
    F6_E2M3 = "F6_E2M3", 6;
    F6_E3M2 = "F6_E3M2", 6;
    U8 = "U8", 8;
    I8 = "I8", 8;
    F8_E5M2 = "F8_E5M2", 8;
    F8_E4M3 = "F8_E4M3", 8;
    F8_E8M0 = "F8_E8M0", 8;
    F8_E4M3FNUZ = "F8_E4M3FNUZ", 8;
    F8_E5M2FNUZ = "F8_E5M2FNUZ", 8;
    I16 = "I16", 16;
    U16 = "U16", 16;
    F16 = "F16", 16;
    BF16 = "BF16", 16;
    I32 = "I32", 32;
    U32 = "U32", 32;
    F32 = "F32", 32;
    C64 = "C64", 64;
    F64 = "F64", 64;
    I64 = "I64", 64;
    U64 = "U64", 64;
}

/// What the arithmetic can do with an element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A float type that is combined.
    Float(Float),
    /// Integers and booleans: copied, never combined.
    Integer,
    /// Codes of a quantised format, or a float type without arithmetic here: copied if nothing is added, otherwise
    /// refused.
    Opaque,
}

impl Dtype {
    /// See [`Kind`].
    pub const fn kind(self) -> Kind {
        match self {
            Self::BF16 => Kind::Float(Float::Bf16),
            Self::F16 => Kind::Float(Float::F16),
            Self::F32 => Kind::Float(Float::F32),
            Self::BOOL
            | Self::U8
            | Self::I8
            | Self::I16
            | Self::U16
            | Self::I32
            | Self::U32
            | Self::I64
            | Self::U64 => Kind::Integer,
            _ => Kind::Opaque,
        }
    }

    /// The float type, if arithmetic is done on it.
    pub const fn float(self) -> Option<Float> {
        match self.kind() {
            Kind::Float(float) => Some(float),
            Kind::Integer | Kind::Opaque => None,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
