//! Instruction sets: chooses the one to use, and compiles the loops of loops.rs for each.
#![allow(unsafe_code, reason = "calling what was compiled for AVX2, and setting the floating-point control register")]

use std::env;

use crate::error::{Error, Result};
use crate::numeric::dtype::Float;
#[cfg(target_arch = "x86_64")]
use crate::numeric::fused;
use crate::numeric::loops::{self, COLUMNS, DEPTH};
use crate::numeric::operand::Bf16Term;
use crate::numeric::quantised::encode::{self, Extent, Met};
use crate::numeric::quantised::{self, Codes};

use crate::numeric::sparse::Values;
#[cfg(target_arch = "x86_64")]
use crate::numeric::sparse_avx2;
use crate::numeric::stats::{ComparisonLanes, Lanes};

/// The environment variable that chooses an instruction set.
pub const VARIABLE: &str = "TASKVEC_SIMD";

/// An instruction set. All of them give the same bits. One that the machine lacks runs as [`Isa::Scalar`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// The instructions that every processor of the architecture has.
    Scalar,
    /// 256-bit vectors of x86-64, detected at run time.
    Avx2,
    /// 128-bit vectors of aarch64. Every such processor has them, so the scalar loops are already compiled for them.
    Neon,
}

impl Isa {
    const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Neon];

    /// The fastest instruction set of this machine.
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

    /// All instruction sets of this machine, slowest first.
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

/// Cheap to call often: the standard library caches the answer of the processor.
fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    // Every such processor counts bits, too; compiled code may rely on that only if it is asked.
    return std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("popcnt");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Sets the default floating-point environment for the calling thread: round to nearest, subnormals kept, no traps. The
/// host process may have changed its own environment, and new threads inherit it.
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

/// Target and one term in bfloat16, rounded to nearest, in one pass over a chunk; figures go to `lanes` where they are
/// wanted. False where there is no such pass, or a value is not finite: then neither `out` nor `lanes` is of use.
pub(crate) fn combine_bf16(isa: Isa, term: Bf16Term, out: &mut [u8], lanes: Option<&mut Lanes>) -> bool {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx2 && has_avx2() && term.alpha.is_finite() {
        // SAFETY: the processor has AVX2, as was just asked.
        return unsafe { fused::combine(term, out, lanes) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (isa, term, out, lanes);
    false
}

/// Defines the loops of `sparse` over whole words of a mask. They return how many words they did: none where there is no
/// such loop.
macro_rules! over_words {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        pub(crate) fn $name(isa: Isa, $($argument: $type),*) -> usize {
            #[cfg(target_arch = "x86_64")]
            if isa == Isa::Avx2 && has_avx2() {
                // SAFETY: the processor has AVX2, as was just asked.
                return unsafe { sparse_avx2::$name($($argument),*) };
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = (isa, $($argument),*);
            0
        }
    )*};
}

over_words! {
    part(bytes: &[u8], high: &mut [u8], mask: &mut [u64], any_low: &mut bool);
    squeeze(bytes: &[u8], mask: &[u64], values: &mut [u16]);
    spread(mask: &[u64], values: Values, out: &mut [u8]);
}

/// Defines one function for each of these loops of a module. Its first argument is the instruction set.
macro_rules! instantiate {
    ($module:ident: $($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        #[allow(clippy::too_many_arguments, reason = "the loop's own, and the instruction set")]
        pub(crate) fn $name(isa: Isa, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            if isa == Isa::Avx2 && has_avx2() {
                #[target_feature(enable = "avx2,popcnt")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    $module::$name($($argument),*)
                }
                // SAFETY: the processor has AVX2, as was just asked.
                return unsafe { avx2($($argument),*) };
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = isa;
            $module::$name($($argument),*)
        }
    )*};
}

instantiate! {
    loops:
    widen(float: Float, bytes: &[u8], out: &mut [f32]);
    subtract(float: Float, bytes: &[u8], out: &mut [f32]);
    scale_add(t: &[f32], alpha: f32, d: &[f32], r: &mut [f32]);
    accumulate(alpha: f32, d: &[f32], r: &mut [f32], v: &mut [f32]);
    narrow(float: Float, r: &[f32], out: &mut [u8]);
    narrow_stochastic(float: Float, r: &[f32], random: &[u32], out: &mut [u8]);
    multiply_add(left: &[[f64; DEPTH]], right: &[[f64; COLUMNS]], sums: &mut [[f64; COLUMNS]]);
    random(key: [u32; 2], first_block: u64, out: &mut [u32]);
    count_ones(mask: &[u64]) -> usize;
    any_lost(d: &[f32], rounded: &[f32]) -> bool;
    masks(term: Bf16Term, out: &[u8], lanes: &mut Lanes);
    statistics(lanes: &mut Lanes, t: &[f32], base: &[f32], v: &[f32], o: &[f32], alpha: f32);
    distances(float: Float, a: &[f32], b: &[f32], out: &mut [u32]);
    comparison(lanes: &mut ComparisonLanes, a: &[f32], b: &[f32]);
}

instantiate! {
    quantised:
    dequantise(kind: Codes, codes: &[u8], first: usize, group: usize, scales: &[f32], out: &mut [u8]);
}

instantiate! {
    encode:
    extent(old: &[f32], new: &[f32]) -> Extent;
    encode(
        kind: Codes,
        old: &[f32],
        new: &[f32],
        codes: &[u8],
        scale: (f32, bool),
        random: &[u32],
        out: &mut [u8]
    ) -> Met;
    decode(kind: Codes, codes: &[u8], scale: f32, out: &mut [f32]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::hint::black_box;
    use std::thread;

    use super::*;
    use crate::numeric::combine::combine;
    use crate::numeric::operand::{Operand, Rounding, Term};

    #[test]
    fn names_choose_and_unknown_ones_are_refused_with_what_there_is() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()).unwrap(), isa);
        }
        let refused = Isa::named("avx9").unwrap_err();
        assert!(matches!(refused, Error::Usage(_)));
        assert!(refused.to_string().contains("avx9") && refused.to_string().contains("scalar"), "{refused}");
        assert_eq!(Isa::available().last(), Some(&Isa::detect()));
    }

    #[test]
    fn instruction_sets_of_other_machines_run_as_scalar() {
        for isa in Isa::ALL {
            let mut out = [0.0];
            widen(isa, Float::Bf16, &[0x80, 0x3F], &mut out);
            assert_eq!(out, [1.0]);
        }
    }

    /// Rounding upwards, and subnormals flushed to zero in operands and results: a host process could have set all of
    /// this.
    fn spoil_float_environment() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the control register of a test thread; the arithmetic done under it is only looked at for its
        // results.
        unsafe {
            std::arch::asm!("ldmxcsr [{}]", in(reg) &0xDFC0u32, options(nostack, readonly, preserves_flags))
        };
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("msr fpcr, {}", in(reg) 0x0140_0000u64, options(nostack, nomem, preserves_flags))
        };
    }

    #[test]
    fn the_default_environment_cures_a_spoiled_thread() {
        // 2^-128 − 0 and 1 + 2^-24: one is flushed and one rounded up unless the environment is the default.
        let halves = |values: [f32; 2]| values.map(f32::to_le_bytes).concat();
        let (t, g, s) = (halves([0.0, 1.0]), halves([2f32.powi(-128), 2f32.powi(-24)]), halves([0.0, 0.0]));
        let run = || {
            let operand = |bytes| Operand { float: Float::F32, bytes };
            let term = Term { minuend: operand(&g), subtrahend: Some(operand(&s)), exceptions: &[], alpha: 1.0 };
            let mut out = vec![0; 8];
            for isa in Isa::available() {
                combine(isa, operand(&t), &[term], 0, Float::F32, &Rounding::Nearest, black_box(&mut out), None);
            }
            out
        };
        let right = halves([2f32.powi(-128), 1.0]);
        thread::scope(|scope| {
            let spoiled = scope.spawn(|| {
                spoil_float_environment();
                let before = run();
                default_float_environment();
                (before, run())
            });
            let (before, after) = spoiled.join().unwrap();
            assert_eq!(after, right);
            if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
                assert_ne!(before, right, "the environment was not spoiled, so this test shows nothing");
            }
        });
    }
}
