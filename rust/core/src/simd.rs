//! Instruction sets: which one runs, and the loops of pass.rs compiled for each.
#![allow(unsafe_code, reason = "calling what was compiled for AVX2, and setting the floating-point control register")]

use std::env;

use crate::dtype::Float;
use crate::error::{Error, Result};
use crate::pass;
use crate::stats::{ComparisonLanes, Lanes};

/// Environment variable that lowers the choice of instruction set.
pub const VARIABLE: &str = "TASKVEC_SIMD";

/// An instruction set. All give the same bits; one that the machine lacks runs as [`Isa::Scalar`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// What every processor of the architecture has.
    Scalar,
    /// 256-bit vectors of x86-64, found at run time.
    Avx2,
    /// 128-bit vectors of aarch64, which every such processor has: the scalar loops, compiled for it anyway.
    Neon,
}

impl Isa {
    const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Neon];

    /// The fastest one here.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap_or(Self::Scalar)
    }

    /// [`Isa::detect`], unless the environment variable `TASKVEC_SIMD` names another.
    pub fn from_env() -> Result<Self> {
        match env::var_os(VARIABLE) {
            Some(name) if !name.is_empty() => Self::named(&name.to_string_lossy()),
            _ => Ok(Self::detect()),
        }
    }

    /// The available instruction set of this name.
    pub fn named(name: &str) -> Result<Self> {
        Self::available().into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            let names = Self::available().into_iter().map(Self::name).collect::<Vec<_>>().join(" or ");
            Error::Usage(format!(
                "{VARIABLE}={name} is not an instruction set of this machine: unset it or use {names}"
            ))
        })
    }

    /// All that run here, slowest first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Its name in `TASKVEC_SIMD`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
        }
    }

    fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            Self::Avx2 => has_avx2(),
            Self::Neon => cfg!(target_arch = "aarch64"),
        }
    }
}

/// A load and a test: the answer of the processor is kept by the standard library.
fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Gives the calling thread the default floating-point environment: round to nearest, subnormals kept, no traps. A host
/// process may have changed its own, and threads inherit it.
pub fn default_float_environment() {
    #[cfg(target_arch = "x86_64")]
    {
        let control: u32 = 0x1F80;
        // SAFETY: loads the control register from a valid address; the value is the one that Rust code assumes.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &control, options(nostack, readonly, preserves_flags)) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: writes the control register only; zero is the value that Rust code assumes.
    unsafe {
        std::arch::asm!("msr fpcr, xzr", options(nostack, nomem, preserves_flags))
    };
}

/// One function per loop of pass.rs, which takes the instruction set first.
macro_rules! instantiate {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        #[allow(clippy::too_many_arguments, reason = "the loop's own, and the instruction set")]
        pub(crate) fn $name(isa: Isa, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            if isa == Isa::Avx2 && has_avx2() {
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    pass::$name($($argument),*)
                }
                // SAFETY: the processor has AVX2, as was just asked.
                return unsafe { avx2($($argument),*) };
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = isa;
            pass::$name($($argument),*)
        }
    )*};
}

instantiate! {
    widen(float: Float, bytes: &[u8], out: &mut [f32]);
    subtract(float: Float, bytes: &[u8], out: &mut [f32]);
    scale_add(t: &[f32], alpha: f32, d: &[f32], r: &mut [f32]);
    accumulate(alpha: f32, d: &[f32], r: &mut [f32], v: &mut [f32]);
    narrow(float: Float, r: &[f32], out: &mut [u8]);
    narrow_stochastic(float: Float, r: &[f32], random: &[u32], out: &mut [u8]);
    random(key: [u32; 2], first_block: u64, out: &mut [u32]);
    any_lost(d: &[f32], rounded: &[f32]) -> bool;
    statistics(lanes: &mut Lanes, t: &[f32], base: &[f32], v: &[f32], o: &[f32], alpha: f32);
    distances(float: Float, a: &[f32], b: &[f32], out: &mut [u32]);
    comparison(lanes: &mut ComparisonLanes, a: &[f32], b: &[f32]);
}
