//! Activations, as they stand in the epilogue of a linear layer.

/// What is applied to every number of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Act {
    /// Nothing.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// The exact form: `x/2 · (1 + erf(x/√2))`.
    Gelu,
    /// `x · sigmoid(x)`.
    Silu,
}

impl Act {
    /// The twin.
    #[must_use]
    #[inline]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Act::None => x,
            Act::Relu => x.max(0.0),
            Act::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
            Act::Silu => x * sigmoid(x),
        }
    }

    /// The twin for many numbers.
    pub(crate) fn apply_to(self, all: &mut [f32]) {
        // one loop each, so that compilers make vector code of them
        match self {
            Act::None => {}
            Act::Relu => all.iter_mut().for_each(|x| *x = Act::Relu.apply(*x)),
            Act::Gelu => all.iter_mut().for_each(|x| *x = Act::Gelu.apply(*x)),
            Act::Silu => all.iter_mut().for_each(|x| *x = Act::Silu.apply(*x)),
        }
    }
}

/// The logistic function.
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The exponential function to 2e-7 relative, the same on every machine, without a branch; from -87 to 88, beyond that
/// the value there. Reduction by ln 2 and polynomial are Cephes' (expf).
#[must_use]
#[inline]
pub fn exp(x: f32) -> f32 {
    // adding and taking away 1.5 · 2^23 rounds to whole numbers
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    (p * r * r + r + 1.0) * f32::from_bits(((n as i32 + 127) << 23).cast_unsigned())
}

/// The error function to 1e-7 absolute: an odd rational function of degree 13 over 8, the one Eigen and XLA use for f32
/// (beyond ±4 it is ±1 in f32). The kernels compute the same.
#[must_use]
pub fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let x2 = x * x;
    let mut p = -2.726_142_3e-10f32;
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_5e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2] {
        p = p * x2 + c;
    }
    let mut q = -1.456_607_2e-5f32;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_3e-3, -1.426_473_9e-2] {
        q = q * x2 + c;
    }
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_two_ulps() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2.5e-7, "exp({x}) = {} instead of {exact}", exp(x));
        }
        assert!(exp(-1e9) < 2e-38 && exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn erf_is_right_to_a_millionth() {
        for i in -500..=500 {
            let x = i as f32 / 100.0;
            let exact = candle_core::cpu::erf::erf_f64(f64::from(x));
            assert!((f64::from(erf(x)) - exact).abs() < 4e-7, "erf({x}) = {} instead of {exact}", erf(x));
        }
    }
}
