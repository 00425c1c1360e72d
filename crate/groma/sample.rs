//! From the decoder's logits to the next token.

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};

use crate::error::{Code, Error, Result};
use crate::tensor::ops::argmax::first_greatest;

/// Below this a temperature is zero: dividing by it would overflow.
const COLDEST: f64 = 1e-7;

/// Chooses tokens: the best one, or a random one whose odds the temperature shapes. The same seed chooses the same.
pub struct Sampler(Option<LogitsProcessor>);

impl Sampler {
    /// Temperature 0 is greedy and needs no seed.
    ///
    /// # Errors
    /// `usage` for a temperature that is negative or no number.
    pub fn new(temperature: f64, seed: u64) -> Result<Self> {
        if !temperature.is_finite() || temperature < 0.0 {
            let e = Error::new(Code::Usage, "the temperature is out of range");
            return Err(e.expected("a number from 0 upwards", temperature));
        }
        let warm = temperature >= COLDEST;
        Ok(Self(warm.then(|| LogitsProcessor::from_sampling(seed, Sampling::All { temperature }))))
    }

    /// Whether the choice is the argmax, which a device can make by itself.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.0.is_none()
    }

    /// The next token.
    ///
    /// # Errors
    /// `internal` where the logits give no distribution.
    pub fn next(&mut self, logits: &[f32]) -> Result<u32> {
        match &mut self.0 {
            None => u32::try_from(first_greatest(logits)).map_err(|_| Error::internal("more logits than ids")),
            Some(processor) => Ok(processor.sample(&Tensor::new(logits, &Device::Cpu)?)?),
        }
    }
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler").field("greedy", &self.is_greedy()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groma::golden::Golden;

    #[test]
    fn argmax_equals_the_goldens() {
        let g = Golden::open("ops");
        let mut seen = 0;
        for case in g.cases().iter().filter(|c| c["op"] == "argmax") {
            let x = g.input(case, "x");
            let want: Vec<u32> = match &case["expect"]["ids"] {
                serde_json::Value::Number(n) => vec![n.as_u64().unwrap() as u32],
                list => serde_json::from_value(list.clone()).unwrap(),
            };
            let got: Vec<u32> =
                x.f32().chunks(*x.shape.last().unwrap()).map(|row| first_greatest(row) as u32).collect();
            assert_eq!(got, want, "{}", case["id"]);
            seen += 1;
        }
        assert!(seen > 0);
    }

    #[test]
    fn a_seed_is_a_sequence() {
        let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.7).sin()).collect();
        let draw = |seed| {
            let mut s = Sampler::new(1.0, seed).unwrap();
            (0..40).map(|_| s.next(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(Sampler::new(0.0, 1).unwrap().is_greedy());
        assert!(Sampler::new(-1.0, 1).is_err() && Sampler::new(f64::NAN, 1).is_err());
        // Cold sampling is nearly always the best one.
        let mut cold = Sampler::new(1e-3, 3).unwrap();
        assert!((0..20).all(|_| cold.next(&[0.0, 0.1, 0.5, 0.3]).unwrap() == 2));
    }
}
