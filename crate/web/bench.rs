//! `npm run bench`: the measuring of `groma bench`, in a browser.

use js_sys::Function;
use wasm_bindgen::prelude::*;

use super::error::{Thrown, thrown};
use super::{Model, Stop, reporter, run};
use crate::error::{Code, Error};
use crate::session::bench::{self, Options};
use crate::tensor::probe::Rates;

#[wasm_bindgen]
impl Model {
    /// Measures every stage `runs` times, and `tokens` tokens. Gives the text of the object that `groma bench --json` prints;
    /// `pack` is its "pack" as JSON. With a `side` only the image encoder, for a picture of so many pixels. Progress counts
    /// rounds.
    pub async fn bench(
        &self,
        pack: String,
        runs: usize,
        tokens: usize,
        side: Option<usize>,
        stop: &Stop,
        progress: Option<Function>,
    ) -> Result<String, Thrown> {
        let report = reporter(progress);
        let run = run(stop, &None);
        let work = async {
            let pack = serde_json::from_str(&pack).map_err(|e| Error::new(Code::Usage, e.to_string()))?;
            let rates = Rates::measure(self.0.device(), &run).await?;
            let options = Options { runs, tokens, side, rates, process_peak: heap };
            let tell = |done, all| report.iter().for_each(|f| f(done, all));
            let measured = bench::measure(&self.0, &options, &run, &tell).await?;
            bench::report(&self.0, pack, rates, &measured)
        };
        work.await.map(|report| report.to_string()).map_err(thrown)
    }
}

/// Bytes of this module's memory, which never shrinks.
fn heap() -> Option<u64> {
    Some(core::arch::wasm32::memory_size::<0>() as u64 * 65_536)
}
