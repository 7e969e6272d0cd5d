//! Defines the number types that kernels are generic over, and their SIMD vectors.
//!
//! [`Scalar`] is any element type; [`Real`] is a floating-point type with vectors for every
//! instruction set that `pulp` supports. [`vectorize!`] compiles a loop for each instruction set
//! and runs the best one that the machine has.

use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use std::mem::size_of;
use std::ops::{Add, Mul, Sub};
use std::sync::LazyLock;

use bytemuck::Pod;
use num_traits::{Float, NumAssign, NumCast};
use pulp::{Arch, MemMask, Simd, WithSimd};

use super::math::Math;

/// An element type: `f32`, `f64`, `i64`, `u8`.
pub trait Scalar: Pod + NumAssign + NumCast + PartialOrd + Debug + Display + Default + Send + Sync + 'static {
    /// Whether speed matters for this type: kernels are then compiled for every instruction set, in
    /// all their block sizes. The other types need fewer copies, which halves the time the crate
    /// takes to compile.
    const FAST: bool;

    /// Returns `a + b`; integers wrap around, in debug builds too.
    fn plus(self, other: Self) -> Self;
    /// Returns `a - b`, wrapping like [`plus`](Scalar::plus).
    fn minus(self, other: Self) -> Self;
    /// Returns `a · b`, wrapping like [`plus`](Scalar::plus).
    fn times(self, other: Self) -> Self;
}

macro_rules! scalar {
    ($($type:ty: $fast:literal, $plus:path, $minus:path, $times:path;)*) => {$(
        impl Scalar for $type {
            const FAST: bool = $fast;

            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                $plus(self, other)
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                $minus(self, other)
            }
            #[inline(always)]
            fn times(self, other: Self) -> Self {
                $times(self, other)
            }
        }
    )*};
}
scalar! {
    f32: true, Add::add, Sub::sub, Mul::mul;
    f64: false, Add::add, Sub::sub, Mul::mul;
    i64: false, i64::wrapping_add, i64::wrapping_sub, i64::wrapping_mul;
    u8: false, u8::wrapping_add, u8::wrapping_sub, u8::wrapping_mul;
}

/// A floating-point element type with SIMD vectors.
pub trait Real: Scalar + Float + Math {
    /// One register of this type.
    type Vector<S: Simd>: Pod;
    /// The set of lanes that a masked access touches.
    type Mask<S: Simd>: Copy;

    /// Converts from `f64`, rounding.
    fn of(x: f64) -> Self;
    /// Returns a vector with `x` in all lanes.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// Returns `a + b`.
    fn vector_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// Returns `a - b`.
    fn vector_sub<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// Returns `a · b`.
    fn vector_mul<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// Returns `a · b + c`, fused if the machine supports it.
    fn vector_mul_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;

    /// Performs one step of a search for the largest element: returns in each lane `(x, tap)` where
    /// `x` is NaN or larger than `best`, else `(best, at)`.
    fn vector_leader<S: Simd>(simd: S, x_tap: [Self::Vector<S>; 2], best_at: [Self::Vector<S>; 2]) -> [Self::Vector<S>; 2];
    /// Returns the sum of all lanes, in an order that depends only on their number.
    fn vector_sum<S: Simd>(simd: S, x: Self::Vector<S>) -> Self;
    /// Returns in each lane `low` where `x` is less, else `x`; NaN stays NaN.
    fn vector_raise<S: Simd>(simd: S, x: Self::Vector<S>, low: Self::Vector<S>) -> Self::Vector<S>;
    /// Returns in each lane `high` where `x` is more, else `x`; NaN stays NaN.
    fn vector_lower<S: Simd>(simd: S, x: Self::Vector<S>, high: Self::Vector<S>) -> Self::Vector<S>;
    /// Returns in each lane `x` where `a` and `b` are equal, else zero.
    fn vector_where_equal<S: Simd>(simd: S, a_b: [Self::Vector<S>; 2], x: Self::Vector<S>) -> Self::Vector<S>;
    /// Returns in each lane zero where `z` is at most `low`, else `x`; also `x` where `z` is NaN.
    fn vector_unless_below<S: Simd>(simd: S, z: Self::Vector<S>, low: Self::Vector<S>, x: Self::Vector<S>) -> Self::Vector<S>;
    /// Returns in each lane `x` where `z` is strictly between the bounds, else zero; also zero
    /// where `z` is NaN.
    fn vector_within<S: Simd>(simd: S, z: Self::Vector<S>, low_high: [Self::Vector<S>; 2], x: Self::Vector<S>) -> Self::Vector<S>;
    /// Converts a whole number from 0 to 255 to a byte; returns some byte for other values.
    fn to_byte(self) -> u8;
    /// Converts a byte back, the inverse of [`to_byte`](Self::to_byte).
    fn of_byte(byte: u8) -> Self;
    /// Returns a mask of the first `count` lanes.
    fn mask<S: Simd>(simd: S, count: usize) -> Self::Mask<S>;
    /// Reads the lanes of a mask; the other lanes are zero.
    ///
    /// # Safety
    /// The mask's lanes must be readable at `from`.
    unsafe fn load_masked<S: Simd>(simd: S, mask: Self::Mask<S>, from: *const Self) -> Self::Vector<S>;
    /// Writes the lanes of a mask.
    ///
    /// # Safety
    /// The mask's lanes must be writable at `to`.
    unsafe fn store_masked<S: Simd>(simd: S, mask: Self::Mask<S>, to: *mut Self, x: Self::Vector<S>);

    /// Reads a vector, or the lanes of a mask if `MASKED`; the other lanes are zero.
    ///
    /// # Safety
    /// The lanes must be readable at `from`.
    #[inline(always)]
    unsafe fn load<S: Simd, const MASKED: bool>(simd: S, mask: Self::Mask<S>, from: *const Self) -> Self::Vector<S> {
        // SAFETY: by this function's contract; vectors are plain numbers.
        unsafe { if MASKED { Self::load_masked(simd, mask, from) } else { from.cast::<Self::Vector<S>>().read_unaligned() } }
    }

    /// Writes a vector, or the lanes of a mask if `MASKED`.
    ///
    /// # Safety
    /// The lanes must be writable at `to`.
    #[inline(always)]
    unsafe fn store<S: Simd, const MASKED: bool>(simd: S, mask: Self::Mask<S>, to: *mut Self, x: Self::Vector<S>) {
        // SAFETY: by this function's contract.
        unsafe { if MASKED { Self::store_masked(simd, mask, to, x) } else { to.cast::<Self::Vector<S>>().write_unaligned(x) } }
    }

    /// Returns the number of lanes in a vector.
    fn lanes<S: Simd>() -> usize {
        size_of::<Self::Vector<S>>() / size_of::<Self>()
    }
}

/// Whether the machine's maximum (minimum) instruction returns its second operand unless the first
/// is larger (smaller), for NaN and zeros too.
const MAX_TAKES_THE_SECOND_NAN: bool = cfg!(target_arch = "x86_64");

/// Implements [`Real`] by pulp's functions for one type, which differ in their names. `$whole` is
/// the least number from which on the type has no fractions.
macro_rules! real {
    (
        $type:ty, $vector:ident, $mask:ident, $count:ty, $whole:literal:
        $add:ident $sub:ident $mul:ident $mul_add_e:ident $max:ident $min:ident $reduce_sum:ident $splat:ident $select:ident
        $equal:ident $less_than:ident $less_than_or_equal:ident $and:ident $not:ident
        $mask_between:ident $mask_load_ptr:ident $mask_store_ptr:ident
    ) => {
        impl Real for $type {
            type Vector<S: Simd> = S::$vector;
            type Mask<S: Simd> = MemMask<S::$mask>;

            #[inline(always)]
            fn mask<S: Simd>(simd: S, count: usize) -> Self::Mask<S> {
                // Uses the bare mask: accesses through the helper routines that come with it cost a
                // call each.
                simd.$mask_between(0, count as $count).mask().into()
            }
            #[inline(always)]
            unsafe fn load_masked<S: Simd>(simd: S, mask: Self::Mask<S>, from: *const $type) -> S::$vector {
                // SAFETY: by this function's contract.
                unsafe { simd.$mask_load_ptr(mask, from) }
            }
            #[inline(always)]
            unsafe fn store_masked<S: Simd>(simd: S, mask: Self::Mask<S>, to: *mut $type, x: S::$vector) {
                // SAFETY: by this function's contract.
                unsafe { simd.$mask_store_ptr(mask, to, x) }
            }

            #[inline(always)]
            fn of(x: f64) -> $type {
                x as $type
            }
            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: $type) -> S::$vector {
                simd.$splat(x)
            }
            #[inline(always)]
            fn vector_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }
            #[inline(always)]
            fn vector_sub<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$sub(a, b)
            }
            #[inline(always)]
            fn vector_mul<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$mul(a, b)
            }
            #[inline(always)]
            fn vector_mul_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$mul_add_e(a, b, c)
            }
            #[inline(always)]
            fn vector_leader<S: Simd>(simd: S, [x, tap]: [S::$vector; 2], [best, at]: [S::$vector; 2]) -> [S::$vector; 2] {
                let stays = simd.$and(simd.$equal(x, x), simd.$not(simd.$less_than(best, x)));
                [simd.$select(stays, best, x), simd.$select(stays, at, tap)]
            }
            #[inline(always)]
            fn vector_where_equal<S: Simd>(simd: S, [a, b]: [S::$vector; 2], x: S::$vector) -> S::$vector {
                simd.$select(simd.$equal(a, b), x, simd.$splat(0.0))
            }
            #[inline(always)]
            fn vector_unless_below<S: Simd>(simd: S, z: S::$vector, low: S::$vector, x: S::$vector) -> S::$vector {
                simd.$select(simd.$less_than_or_equal(z, low), simd.$splat(0.0), x)
            }
            #[inline(always)]
            fn vector_within<S: Simd>(simd: S, z: S::$vector, [low, high]: [S::$vector; 2], x: S::$vector) -> S::$vector {
                let inside = simd.$and(simd.$less_than(low, z), simd.$less_than(z, high));
                simd.$select(inside, x, simd.$splat(0.0))
            }
            #[inline(always)]
            fn vector_sum<S: Simd>(simd: S, x: S::$vector) -> $type {
                simd.$reduce_sum(x)
            }
            #[inline(always)]
            fn vector_raise<S: Simd>(simd: S, x: S::$vector, low: S::$vector) -> S::$vector {
                if MAX_TAKES_THE_SECOND_NAN && !S::IS_SCALAR {
                    return simd.$max(low, x);
                }
                simd.$select(simd.$less_than(x, low), low, x)
            }
            #[inline(always)]
            fn vector_lower<S: Simd>(simd: S, x: S::$vector, high: S::$vector) -> S::$vector {
                if MAX_TAKES_THE_SECOND_NAN && !S::IS_SCALAR {
                    return simd.$min(high, x);
                }
                simd.$select(simd.$less_than(high, x), high, x)
            }
            #[inline(always)]
            fn to_byte(self) -> u8 {
                // In numbers this large, the low bits of the mantissa hold the integer. A
                // conversion would have to check for values that no byte can hold.
                (self + $whole).to_bits() as u8
            }
            #[inline(always)]
            fn of_byte(byte: u8) -> $type {
                byte as $type
            }
        }
    };
}
real! {
    f32, f32s, m32s, u32, 8_388_608.0:
    add_f32s sub_f32s mul_f32s mul_add_e_f32s max_f32s min_f32s reduce_sum_f32s splat_f32s select_f32s
    equal_f32s less_than_f32s less_than_or_equal_f32s and_m32s not_m32s
    mask_between_m32s mask_load_ptr_f32s mask_store_ptr_f32s
}
real! {
    f64, f64s, m64s, u64, 4_503_599_627_370_496.0:
    add_f64s sub_f64s mul_f64s mul_add_e_f64s max_f64s min_f64s reduce_sum_f64s splat_f64s select_f64s
    equal_f64s less_than_f64s less_than_or_equal_f64s and_m64s not_m64s
    mask_between_m64s mask_load_ptr_f64s mask_store_ptr_f64s
}

/// Prefetches the cache line at `pointer`, which may be any address. For lines that will soon be
/// read, or written, so that the stores need not wait for them. They are loaded into L2, so that
/// the contents of L1 stay there.
#[inline(always)]
pub(crate) fn prefetch<T>(pointer: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint that touches no memory that the program can observe and never
    // faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(pointer.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
}

/// Returns `[f(0), f(1), …]`, not empty. Kernels are compiled in many copies; the compiler starts
/// with a fifth of the code that it has for `std::array::from_fn`.
#[inline(always)]
pub fn array<V: Copy, const N: usize>(mut f: impl FnMut(usize) -> V) -> [V; N] {
    let mut values = [f(0); N];
    let mut i = 1;
    while i < N {
        values[i] = f(i);
        i += 1;
    }
    values
}

/// Calls `body` with an element of `y` and the one of `b` at the same index, for all indices that
/// both slices have.
///
/// A plain loop, for code that is compiled for an instruction set: the compiler may make the loop
/// of an iterator, for example of `zip`, a separate function, compiled without the instruction set.
#[inline(always)]
pub fn for_pairs<Y, B: Copy>(y: &mut [Y], b: &[B], mut body: impl FnMut(&mut Y, B)) {
    let length = y.len().min(b.len());
    let (y, b) = (&mut y[..length], &b[..length]);
    for i in 0..length {
        body(&mut y[i], b[i]);
    }
}

/// Does the same as [`for_pairs`] with three slices.
#[inline(always)]
pub fn for_triples<Y, A: Copy, B: Copy>(y: &mut [Y], a: &[A], b: &[B], mut body: impl FnMut(&mut Y, A, B)) {
    let length = y.len().min(a.len()).min(b.len());
    let (y, a, b) = (&mut y[..length], &a[..length], &b[..length]);
    for i in 0..length {
        body(&mut y[i], a[i], b[i]);
    }
}

/// The instruction set in use: the best that the machine has, or the one to which `CONVNET_ISA`
/// (`avx512`, `avx2`, `portable`) limits it.
static ARCH: LazyLock<Arch> = LazyLock::new(|| {
    let cap = std::env::var("CONVNET_ISA").unwrap_or_default();
    match cap.as_str() {
        "portable" => Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        "avx2" => pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3),
        _ => Arch::new(),
    }
});

/// Returns the name of the instruction set that computations use: the best one that the machine has
/// and the crate supports, unless the environment variable `CONVNET_ISA` (`avx2`, `portable`)
/// selects a lesser one.
pub fn instruction_set() -> &'static str {
    match *ARCH {
        Arch::Scalar => "portable",
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => "AVX2",
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => "AVX-512",
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => "NEON",
        #[allow(unreachable_patterns)] // 32-bit machines and future architectures
        _ => "SIMD",
    }
}

/// The instruction set in use for types that are not [fast](Scalar::FAST), which gain nothing from
/// AVX-512.
#[cfg(target_arch = "x86_64")]
static NARROW: LazyLock<Option<pulp::x86::V3>> = LazyLock::new(|| match *ARCH {
    Arch::Scalar => None,
    _ => pulp::x86::V3::try_new(),
});

/// Returns whether the instruction set in use has AVX2.
#[cfg(all(target_arch = "x86_64", feature = "image"))]
pub fn has_avx2() -> bool {
    NARROW.is_some()
}

/// Runs `op`, whose vectors are of `T`, compiled for the instruction set in use.
#[inline(always)]
pub fn dispatch<T: Scalar, Op: WithSimd>(op: Op) -> Op::Output {
    if const { T::FAST || cfg!(not(target_arch = "x86_64")) } {
        return ARCH.dispatch(op);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = *NARROW {
        return Simd::vectorize(simd, op);
    }
    pulp::Scalar.vectorize(op)
}

/// Like [`dispatch`], for an `op` whose data layout does not depend on the length of vectors and
/// that takes little of the time: types that are not [fast](Scalar::FAST) use one lane at a time.
#[inline(always)]
pub fn dispatch_light<T: Scalar, Op: WithSimd>(op: Op) -> Op::Output {
    if const { T::FAST } { ARCH.dispatch(op) } else { pulp::Scalar.vectorize(op) }
}

/// The element types that a loop works on: one or several.
pub trait ElementTypes {
    /// Whether speed matters for one of them.
    const FAST: bool;
}

impl<T: Scalar> ElementTypes for T {
    const FAST: bool = T::FAST;
}

impl<A: Scalar, B: Scalar> ElementTypes for (A, B) {
    const FAST: bool = A::FAST || B::FAST;
}

impl<A: Scalar, B: Scalar, C: Scalar> ElementTypes for (A, B, C) {
    const FAST: bool = A::FAST || B::FAST || C::FAST;
}

/// Evaluates an expression over elements of a type (or a tuple of types), compiled for the
/// instruction set in use so that the compiler can vectorise its loops; for types that are not
/// [fast](ElementTypes::FAST), with the instructions that every processor has.
///
/// A macro, so that the closure it makes is `inline(always)`: otherwise the compiler may leave it a
/// separate function, compiled without the instruction set. The same is true of what it calls.
macro_rules! vectorize {
    ($types:ty, $body:expr) => {
        $crate::kernels::runtime::simd::run_vectorized::<$types, _>(
            #[inline(always)]
            || $body,
        )
    };
}
pub(crate) use vectorize;

/// Runs the closure of [`vectorize!`].
#[inline(always)]
pub fn run_vectorized<T: ElementTypes, R>(body: impl FnOnce() -> R) -> R {
    if const { !T::FAST } {
        return body();
    }
    #[cfg(target_arch = "x86_64")]
    match *ARCH {
        // SAFETY: pulp has checked that the processor has the instructions of this level.
        Arch::V4(_) => unsafe { with_avx512(body) },
        // SAFETY: as above.
        Arch::V3(_) => unsafe { with_avx2(body) },
        _ => body(),
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        struct Closure<F>(F);
        impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Closure<F> {
            type Output = R;
            #[inline(always)]
            fn call(self) -> R {
                (self.0)()
            }
        }
        ARCH.dispatch(Closure(body))
    }
}

/// Runs a closure compiled for AVX2. Generates less code than pulp's version for any number of
/// arguments, of which each closure gets a copy.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,avx2,bmi1,bmi2,fma,lzcnt,popcnt")]
fn with_avx2<R>(body: impl FnOnce() -> R) -> R {
    body()
}

/// Runs a closure compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx,avx2,bmi1,bmi2,fma,lzcnt,popcnt")]
fn with_avx512<R>(body: impl FnOnce() -> R) -> R {
    body()
}

/// Returns the number of lanes of a vector of `T` in the instruction set in use.
pub(crate) fn lanes<T: Real>() -> usize {
    struct Lanes<T>(PhantomData<T>);
    impl<T: Real> WithSimd for Lanes<T> {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            T::lanes::<S>()
        }
    }
    dispatch::<T, _>(Lanes(PhantomData::<T>))
}
