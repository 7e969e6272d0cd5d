//! Exponentials, logarithms and the error function, fast for `f32`.
//!
//! The standard library's functions are calls, and a loop that contains a call is not vectorised.
//! For `f32` these functions are therefore polynomials without branches or tables, after Cephes
//! (Moshier) and, for the error function, Juffa; the results are within a few units in the last
//! place of the exact value. Every instruction set gives the same bits: multiply-adds are always
//! fused, which costs a call only where the portable code runs on a processor without such an
//! instruction. For `f64`, where accuracy matters more than speed, the functions are the standard
//! library's.

use std::f32::consts::{FRAC_1_SQRT_2, LN_2, LOG2_E};

/// Mathematical functions for loops over elements.
pub trait Math: Copy {
    /// Computes `eˣ`.
    fn exp_fast(self) -> Self;
    /// Computes `eˣ - 1`, accurate near 0.
    fn exp_m1_fast(self) -> Self;
    /// Computes the natural logarithm.
    fn ln_fast(self) -> Self;
    /// Computes `ln(1 + x)` for `x` in `[0, 1]`, accurate near 0.
    fn ln_1p_fast(self) -> Self;
    /// Computes the hyperbolic tangent.
    fn tanh_fast(self) -> Self;
    /// Computes `1 / (1 + e⁻ˣ)`.
    fn sigmoid(self) -> Self;
    /// Computes the error function.
    fn error_function(self) -> Self;
}

/// Computes `Σ c[i] · x^(n - 1 - i)`: the coefficient of the highest power comes first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut sum = c[0];
    for &c in &c[1..] {
        sum = sum.mul_add(x, c);
    }
    sum
}

/// Computes `2ⁿ` for `n` in `-126..=127`; infinite for 128.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    // Wrapping: overflow checks would prevent loops from being vectorised, and the `n` of a NaN is
    // meaningless.
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// 1.5 · 2²³: adding it to a number below 2²² rounds that number to an integer and leaves the
/// integer in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// Returns the integer in the low bits of a number to which [`MAGIC`] was added.
#[inline(always)]
fn low_bits(shifted: f32) -> i32 {
    (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

/// Splits `eˣ = 2ⁿ · eʳ`, `|r| <= ln 2 / 2`; returns `n` and `eʳ - 1`. `x` must be within ±200 or
/// NaN.
#[inline(always)]
fn split_exp(x: f32) -> (i32, f32) {
    let shifted = x.mul_add(LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    // ln 2 in two parts, the first short enough for an exact product.
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let tail = polynomial(r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    (low_bits(shifted), tail.mul_add(r * r, r))
}

/// Clamps `x` to the bounds; NaN stays NaN.
#[inline(always)]
fn bound(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

impl Math for f32 {
    #[inline(always)]
    fn exp_fast(self) -> f32 {
        // Beyond the bounds the result is 0 or infinite; two factors reach both, and the subnormal
        // numbers between.
        let (n, p) = split_exp(bound(self, -105.0, 89.0));
        let half = n >> 1;
        p.mul_add(power_of_two(half), power_of_two(half)) * power_of_two(n.wrapping_sub(half))
    }

    #[inline(always)]
    fn exp_m1_fast(self) -> f32 {
        let (n, p) = split_exp(bound(self, -40.0, 89.0));
        let half = n >> 1;
        let rest = n.wrapping_sub(half);
        p.mul_add(power_of_two(half), power_of_two(half) - power_of_two(rest.wrapping_neg())) * power_of_two(rest)
    }

    #[inline(always)]
    fn ln_fast(self) -> f32 {
        // Subnormal numbers are scaled up first.
        let tiny = self < f32::MIN_POSITIVE;
        let x = if tiny { self * 8_388_608.0 } else { self };
        let bits = x.to_bits();
        let exponent = ((bits >> 23) as i32).wrapping_sub(126) as f32 - if tiny { 23.0 } else { 0.0 };
        let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000);
        let low = mantissa < FRAC_1_SQRT_2;
        let exponent = if low { exponent - 1.0 } else { exponent };
        let m = if low { mantissa + mantissa - 1.0 } else { mantissa - 1.0 };
        let z = m * m;
        let c = [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ];
        let y = polynomial(m, c) * m * z + exponent * -2.121_944_4e-4 - 0.5 * z;
        let ln = m + y + exponent * 0.693_359_4;
        let ln = if self == 0.0 { f32::NEG_INFINITY } else { ln };
        let ln = if self < 0.0 { f32::NAN } else { ln };
        // Infinity and NaN are returned unchanged.
        if self < f32::INFINITY { ln } else { self }
    }

    #[inline(always)]
    fn ln_1p_fast(self) -> f32 {
        let sum = 1.0 + self;
        // The second term restores the digits that the sum lost.
        sum.ln_fast() + (self - (sum - 1.0)) / sum
    }

    #[inline(always)]
    fn tanh_fast(self) -> f32 {
        // From 10 on the result rounds to 1.
        let t = (2.0 * bound(self.abs(), 0.0, 10.0)).exp_m1_fast();
        (t / (t + 2.0)).copysign(self)
    }

    #[inline(always)]
    fn sigmoid(self) -> f32 {
        // e⁻ˣ = 2ⁿ · 2ᶠ, |f| <= 1/2, the latter within 1.1e-7. The added 1 reduces the relative
        // error, so fewer terms suffice than for the exponential alone. Within the bounds one
        // factor holds 2ⁿ, or is infinite where 2ⁿ is nearly infinite.
        const NEGATIVE: f32 = -LOG2_E;
        let x = bound(self, -88.8, 87.0);
        let shifted = x.mul_add(NEGATIVE, MAGIC);
        let f = x.mul_add(NEGATIVE, MAGIC - shifted);
        let p = polynomial(f, [1.330_060_8e-3, 9.669_692e-3, 5.550_558_5e-2, 2.402_228_3e-1, LN_2, 1.0]);
        1.0 / p.mul_add(power_of_two(low_bits(shifted)), 1.0)
    }

    #[inline(always)]
    fn error_function(self) -> f32 {
        let (t, s) = (bound(self.abs(), 0.0, 4.0), self * self);
        let near = polynomial(s, [-5.967_617e-4, 4.991_194e-3, -2.676_813_5e-2, 1.128_199_3e-1, -3.761_253_4e-1, 1.283_791_7e-1]);
        let exponent = polynomial(
            t,
            [-1.728_534_7e-5, 3.831_971_3e-4, -3.883_964_4e-3, 2.425_462_2e-2, -1.067_778_8e-1, -6.348_468_7e-1, -1.287_175_1e-1],
        );
        let far = (1.0 - (exponent * t - t).exp_fast()).copysign(self);
        if t > 0.927_734_4 { far } else { near * self + self }
    }
}

impl Math for f64 {
    #[inline(always)]
    fn exp_fast(self) -> f64 {
        self.exp()
    }
    #[inline(always)]
    fn exp_m1_fast(self) -> f64 {
        self.exp_m1()
    }
    #[inline(always)]
    fn ln_fast(self) -> f64 {
        self.ln()
    }
    #[inline(always)]
    fn ln_1p_fast(self) -> f64 {
        self.ln_1p()
    }
    #[inline(always)]
    fn tanh_fast(self) -> f64 {
        self.tanh()
    }
    #[inline(always)]
    fn sigmoid(self) -> f64 {
        1.0 / (1.0 + (-self).exp())
    }

    fn error_function(self) -> f64 {
        let (x, gauss) = (self.abs(), (-self * self).exp());
        if x < 3.0 {
            // 2/√π · e^(-x²) · Σ (2x²)ⁿ x / (1 · 3 · … · (2n + 1)): all terms have one sign, so
            // nothing cancels.
            let (mut term, mut sum) = (self, self);
            for n in 1..70 {
                term *= 2.0 * x * x / (2 * n + 1) as f64;
                sum += term;
            }
            return std::f64::consts::FRAC_2_SQRT_PI * gauss * sum;
        }
        // The continued fraction of the complement, from the inside out: x + (1/2) / (x + (2/2) /
        // (x + …)).
        let fraction = (1..50).rev().fold(x, |rest, k| x + 0.5 * k as f64 / rest);
        (1.0 - 0.5 * std::f64::consts::FRAC_2_SQRT_PI * gauss / fraction).copysign(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns numbers of every magnitude and both signs, dense around 0, and the special values.
    fn numbers() -> impl Iterator<Item = f32> {
        let patterns = (0..u32::MAX).step_by(4_999).map(f32::from_bits);
        let dense = (-120_000..=120_000).map(|i| i as f32 / 1000.0);
        let special =
            [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e-45, f32::MAX, f32::MIN, 88.722_83, 88.722_84];
        patterns.chain(dense).chain(special)
    }

    /// Returns whether `y` is within `ulps` units in the last place of the exact value.
    fn close(y: f32, exact: f64, ulps: f64) -> bool {
        let rounded = exact as f32;
        if !rounded.is_finite() || !y.is_finite() {
            return y.is_nan() && exact.is_nan() || y == rounded;
        }
        let unit = f64::from(f32::EPSILON) * exact.abs().max(f64::from(f32::MIN_POSITIVE));
        approx::abs_diff_eq!(f64::from(y), exact, epsilon = ulps * unit)
    }

    fn check(name: &str, ulps: f64, fast: fn(f32) -> f32, exact: fn(f64) -> f64, inputs: impl Iterator<Item = f32>) {
        for x in inputs {
            let (y, exact) = (fast(x), exact(f64::from(x)));
            assert!(close(y, exact, ulps), "{name}({x:e}) is {exact:e}, got {y:e}");
        }
    }

    #[test]
    fn single_precision_functions_are_within_a_few_ulps_of_exact_values() {
        check("exp", 1.5, f32::exp_fast, f64::exp, numbers());
        check("exp_m1", 2.0, f32::exp_m1_fast, f64::exp_m1, numbers());
        check("ln", 1.5, f32::ln_fast, f64::ln, numbers());
        check("ln_1p", 2.0, f32::ln_1p_fast, f64::ln_1p, numbers().filter(|x| (0.0..=1.0).contains(x) || x.is_nan()));
        check("tanh", 3.0, f32::tanh_fast, f64::tanh, numbers());
        check("erf", 2.0, f32::error_function, <f64 as Math>::error_function, numbers());
        check("sigmoid", 3.0, f32::sigmoid, <f64 as Math>::sigmoid, numbers().filter(|x| !(-110.0..-12.0).contains(x)));
        // Results close to 0 are less exact; where e⁻ˣ overflows, the sigmoid is 0 and the exact
        // value is subnormal.
        check("sigmoid", 12.0, f32::sigmoid, <f64 as Math>::sigmoid, numbers().filter(|x| !(-110.0..-87.0).contains(x)));
    }

    #[test]
    fn odd_functions_keep_sign_of_zero() {
        for f in [f32::tanh_fast, f32::error_function] {
            assert!(f(-0.0).is_sign_negative() && f(0.0).is_sign_positive());
        }
    }

    /// From Python: `[math.erf(x) for x in (…)]`.
    #[test]
    #[allow(clippy::excessive_precision)] // as printed
    fn double_precision_error_function_is_exact_to_15_digits() {
        let known: [(f64, f64); 16] = [
            (1e-300, 1.1283791670955126e-300),
            (1e-10, 1.1283791670955126e-10),
            (0.1, 0.1124629160182849),
            (0.5, 0.5204998778130465),
            (0.9, 0.7969082124228322),
            (1.0, 0.8427007929497149),
            (1.5, 0.9661051464753108),
            (2.0, 0.9953222650189527),
            (2.5, 0.999593047982555),
            (2.9999, 0.9999778955735178),
            (3.0, 0.9999779095030014),
            (3.5, 0.9999992569016276),
            (4.0, 0.9999999845827421),
            (5.0, 0.9999999999984626),
            (5.9, 0.9999999999999999),
            (6.5, 1.0),
        ];
        for (x, exact) in known {
            let (y, mirrored): (f64, f64) = (Math::error_function(x), Math::error_function(-x));
            assert!(approx::relative_eq!(y, exact, epsilon = 0.0, max_relative = 1e-15), "erf({x}) is {exact}, got {y}");
            assert_eq!(y, -mirrored);
        }
        assert!(Math::error_function(f64::NAN).is_nan());
        assert_eq!(
            (Math::error_function(f64::INFINITY), Math::error_function(f64::NEG_INFINITY), Math::error_function(0.0f64)),
            (1.0, -1.0, 0.0)
        );
    }
}
