//! The decoder at work: a prompt is read after what the cache already holds, then tokens come one by one.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use web_time::Instant;

use super::model::Model;
use crate::error::{Code, Error, Result};
use crate::groma::decoder::{self, Ending, HISTORY, Memory};
use crate::groma::prompt::Row;
use crate::groma::sample::Sampler;
use crate::tensor::ops::argmax::state;
use crate::tensor::ops::embed::{KIND_IMAGE, KIND_REGION, KIND_SHIFT, KIND_TOKEN};
use crate::tensor::plan::{Compiled, Look, Run, Tap, Then};
use crate::tensor::{DType, Device, Plan, Tensor};

/// Rows of a prompt that are read at once: few enough that a submit stays short, many enough for a matrix product.
const CHUNK: usize = 128;
/// Rows that a GPU's chunk is padded to, so that few plans serve all lengths.
const PADDED: [usize; 4] = [1, 16, 64, CHUNK];
/// What a cache grows by.
const GROWTH: usize = 256;
/// How long a device may compute before the host looks at what it said: words that come so often still flow.
const SILENCE: Duration = Duration::from_millis(250);

/// A conversation's cache and the plans that read and extend it.
#[derive(Debug)]
pub struct Text {
    model: Rc<Model>,
    memory: Memory,
    kept: Vec<Row>,
    steps: HashMap<Ending, Compiled>,
    chunks: HashMap<(usize, Ending), Compiled>,
    tapped: bool,
    silence: Duration,
}

/// The rows that a prompt's codes may name besides tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// Image tokens.
    pub image: Option<&'a Tensor>,
    /// Region tokens.
    pub regions: Option<&'a Tensor>,
}

fn code(row: Row) -> u32 {
    match row {
        Row::Token(id) => KIND_TOKEN << KIND_SHIFT | id,
        Row::Image(i) => KIND_IMAGE << KIND_SHIFT | i,
        Row::Region(i) => KIND_REGION << KIND_SHIFT | i,
    }
}

impl Text {
    /// An empty conversation.
    ///
    /// # Errors
    /// `pack-invalid` where the model has no decoder; `out-of-memory`.
    pub fn new(model: &Rc<Model>) -> Result<Self> {
        model.rope()?;
        let memory = Memory::new(&model.device, &model.config, CHUNK)?;
        Ok(Self {
            model: model.clone(),
            memory,
            kept: Vec::new(),
            steps: HashMap::new(),
            chunks: HashMap::new(),
            tapped: false,
            silence: SILENCE,
        })
    }

    /// How long a device may compute before the host looks, instead of a quarter of a second: for whoever counts what a
    /// device costs, however fast it is.
    #[must_use]
    pub fn with_silence(mut self, most: Duration) -> Self {
        self.silence = most;
        self
    }

    /// Whole prompts in one tapped chunk, for whoever compares stages.
    #[must_use]
    pub fn tapped(mut self) -> Self {
        self.tapped = true;
        self
    }

    /// Positions in the cache.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// The plan of a decode step, for whoever counts.
    ///
    /// # Errors
    /// The device's own, while the plan is made.
    pub fn step(&mut self, ending: Ending) -> Result<&Compiled> {
        if !self.steps.contains_key(&ending) {
            let mut p = Plan::new(&self.model.device, false);
            decoder::record_step(
                &mut p,
                &self.model.config,
                &self.model.weights,
                self.model.rope()?,
                &self.memory,
                ending,
            )?;
            self.steps.insert(ending, p.compile()?);
        }
        Ok(&self.steps[&ending])
    }

    /// Forgets the cache from the first region row on: the regions changed.
    pub fn forget_regions(&mut self) {
        if let Some(at) = self.kept.iter().position(|r| matches!(r, Row::Region(_))) {
            self.kept.truncate(at);
        }
        // the plans hold the old region tokens
        self.chunks.clear();
    }

    /// Makes the pipelines that a conversation needs, so that its first prompt does not wait for them.
    pub(super) fn prepare(&mut self) -> Result<()> {
        let m = self.model.clone();
        let row = m.device.zeros("decoder.row", &[1, m.config.llm.hidden_size], DType::F32)?;
        for rows in [1, PADDED[1]] {
            let mut p = Plan::new(&m.device, false);
            let (w, source) = (&m.weights, Some(&row));
            decoder::record_chunk(&mut p, &m.config, w, m.rope()?, &self.memory, source, source, rows, Ending::Greedy)?;
            p.prepare()?;
        }
        Ok(())
    }

    /// Makes room for `rows` positions; what is kept moves along.
    fn reserve(&mut self, rows: usize) -> Result<()> {
        let rows = rows + CHUNK;
        if rows > self.memory.capacity {
            // the plans hold the old cache
            self.steps.clear();
            self.chunks.clear();
            let capacity = rows.next_multiple_of(GROWTH);
            let grown = self.memory.grow(&self.model.device, capacity, self.kept.len());
            if grown.is_err() {
                // some layers are larger than others now: nothing of it can be used
                self.kept.clear();
            }
            grown?;
        }
        Ok(())
    }

    /// Bytes of the cache of keys and values.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.memory.caches.iter().map(|c| c.k.bytes() + c.v.bytes()).sum()
    }

    /// Reads a prompt; what the cache holds of it is not read again. Returns how many rows were.
    ///
    /// # Errors
    /// `usage` for a prompt without rows; `prompt-too-long`; `pack-invalid` for a token without an embedding; `aborted` (the
    /// rows read so far are kept).
    pub async fn read(
        &mut self,
        rows: &[Row],
        room: usize,
        sources: Sources<'_>,
        ending: Ending,
        run: &Run<'_>,
    ) -> Result<usize> {
        if rows.is_empty() {
            return Err(Error::new(Code::Usage, "the prompt is empty").expected("one row or more", 0));
        }
        let context = self.model.context_length();
        if rows.len() >= context {
            return Err(Error::new(Code::PromptTooLong, "the prompt does not fit the model's context")
                .expected(format!("fewer than {context} positions"), rows.len()));
        }
        let table = self.model.config.llm.vocab_size + self.model.config.num_new_token;
        if let Some(row) = rows.iter().find(|r| matches!(r, Row::Token(id) if *id as usize >= table)) {
            return Err(Error::new(Code::PackInvalid, "the tokenizer has a token that the language model lacks")
                .expected(format!("ids below {table}"), format!("{row:?}")));
        }
        self.reserve(rows.len().saturating_add(room).min(context))?;
        let common = self.kept.iter().zip(rows).take_while(|(a, b)| a == b).count().min(rows.len() - 1);
        self.kept.truncate(common);
        let mut at = common;
        while at < rows.len() {
            run.breathe().await?;
            let count = if self.tapped { rows.len() - at } else { CHUNK.min(rows.len() - at) };
            let last = at + count == rows.len();
            let part = &rows[at..at + count];
            self.chunk(part, at, sources, if last { ending } else { Ending::None }, run).await?;
            self.kept.extend_from_slice(part);
            at += count;
            run.progress(at - common, rows.len() - common);
        }
        Ok(rows.len() - common)
    }

    async fn chunk(
        &mut self,
        rows: &[Row],
        at: usize,
        sources: Sources<'_>,
        ending: Ending,
        run: &Run<'_>,
    ) -> Result<()> {
        let device = self.model.device.clone();
        let padded = match device {
            Device::Gpu(_) if !self.tapped => *PADDED.iter().find(|n| **n >= rows.len()).unwrap_or(&CHUNK),
            _ => rows.len(),
        };
        let mut codes: Vec<u32> = rows.iter().map(|r| code(*r)).collect();
        codes.resize(padded, code(Row::Token(0)));
        device.write_u32(&self.memory.codes, 0, &codes)?;
        self.set_state(at, rows.len(), 0, 0)?;
        let key = (padded, ending);
        if !self.chunks.contains_key(&key) {
            let m = &self.model;
            let mut p = Plan::new(&device, self.tapped);
            decoder::record_chunk(
                &mut p,
                &m.config,
                &m.weights,
                m.rope()?,
                &self.memory,
                sources.image,
                sources.regions,
                padded,
                ending,
            )?;
            self.chunks.insert(key, p.compile()?);
        }
        self.chunks[&key].run(run).await
    }

    /// The taps of the chunk that a tapped conversation read.
    pub fn taps(&self) -> impl Iterator<Item = &Tap> {
        self.chunks.values().flat_map(|c| c.plan().taps())
    }

    /// All plans that were made, for whoever counts.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.steps.values().chain(self.chunks.values()).map(Compiled::plan)
    }

    /// The token that the device chose last: waits for it.
    ///
    /// # Errors
    /// The device's own.
    pub async fn chosen(&self) -> Result<u32> {
        let look = [Look { tensor: &self.memory.state, first: state::TOKEN, count: 1 }];
        let read = self.model.device.look(&look).await?.concat();
        read.first().copied().ok_or_else(|| Error::internal("one number was asked for"))
    }

    fn set_state(&self, position: usize, rows: usize, token: u32, chosen: u32) -> Result<()> {
        let mut s = [0; state::LEN];
        let small = |n: usize| u32::try_from(n).map_err(|_| Error::internal("a position beyond u32"));
        s[state::POSITION] = small(position)?;
        s[state::ROWS] = small(rows)?;
        s[state::TOKEN] = token;
        s[state::CHOSEN] = chosen;
        self.model.device.write_u32(&self.memory.state, 0, &s)
    }

    /// The logits of the last step, the added tokens' behind the vocabulary's.
    ///
    /// # Errors
    /// The device's own.
    pub async fn logits(&self) -> Result<Vec<f32>> {
        let mut tensors = vec![&self.memory.logits];
        tensors.extend(&self.memory.extra);
        Ok(self.model.device.read_f32(&tensors).await?.concat())
    }

    /// Tokens after a prompt that was read with `ending`, until `on` says stop or `max` are out. `on` is told every token.
    ///
    /// # Errors
    /// Whatever `on` or the device says; `aborted`.
    pub async fn generate(
        &mut self,
        sampler: &mut Sampler,
        max: usize,
        run: &Run<'_>,
        on: &mut dyn FnMut(u32) -> Result<bool>,
    ) -> Result<()> {
        let max = max.min(self.model.context_length().saturating_sub(self.kept.len()));
        if sampler.is_greedy() {
            self.generate_greedy(max, run, on).await
        } else {
            self.generate_sampled(sampler, max, run, on).await
        }
    }

    /// The device chooses; the host looks at the choices a few at a time.
    async fn generate_greedy(
        &mut self,
        max: usize,
        run: &Run<'_>,
        on: &mut dyn FnMut(u32) -> Result<bool>,
    ) -> Result<()> {
        let device = self.model.device.clone();
        // the prompt's run has chosen the first one
        if max == 0 {
            return Ok(());
        }
        let (mut seen, mut unread) = (0, None);
        let history = self.memory.history.clone();
        let mut new = device.look(&[Look { tensor: &history, first: 0, count: 1 }]).await?.concat();
        let mut a_token = Duration::ZERO;
        while !new.is_empty() {
            for token in new {
                // the step that chose it had read the one before; a stop may come before any step reads it
                self.kept.extend(unread.replace(Row::Token(token)));
                seen += 1;
                if !on(token)? || seen == max {
                    return Ok(());
                }
            }
            run.breathe().await?;
            let more = match device {
                Device::Gpu(_) => ahead(seen, a_token, self.silence).min(max - seen),
                Device::Cpu(_) => 1,
            };
            let look = [Look { tensor: &history, first: seen % HISTORY, count: more }];
            let then = Then { copies: &[], looks: &look };
            let start = Instant::now();
            new = self.step(Ending::Greedy)?.run_then(more, then, run).await?.concat();
            a_token = start.elapsed() / more as u32;
        }
        Ok(())
    }

    async fn generate_sampled(
        &mut self,
        sampler: &mut Sampler,
        max: usize,
        run: &Run<'_>,
        on: &mut dyn FnMut(u32) -> Result<bool>,
    ) -> Result<()> {
        for i in 0..max {
            run.breathe().await?;
            let token = sampler.next(&self.logits().await?)?;
            if !on(token)? || i + 1 == max {
                return Ok(());
            }
            self.set_state(self.kept.len(), 1, token, 0)?;
            self.step(Ending::Logits)?.run(run).await?;
            self.kept.push(Row::Token(token));
        }
        Ok(())
    }
}

/// How many tokens a device computes before the host looks again, after `seen` of them: one at first, so that the answer
/// begins at once, then twice as many each time, as long as no look lets text wait longer than `silence` where a token
/// takes `a_token`. They never wrap around the ring's end.
fn ahead(seen: usize, a_token: Duration, silence: Duration) -> usize {
    let most = silence.as_nanos() / a_token.as_nanos().max(1);
    let most = usize::try_from(most).unwrap_or(HISTORY).clamp(1, HISTORY);
    // powers of two fill the ring without a rest
    (1 << most.ilog2()).min(seen.max(1)).min(HISTORY - seen % HISTORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens of every look at an answer of `tokens`, where a token takes so many milliseconds.
    fn looks(tokens: usize, ms: impl Fn(usize) -> u64) -> Vec<usize> {
        let (mut seen, mut counts, mut a_token) = (1, Vec::new(), Duration::ZERO);
        while seen < tokens {
            let count = ahead(seen, a_token, SILENCE);
            assert!(count >= 1 && seen % HISTORY + count <= HISTORY, "{count} after {seen} wrap around");
            a_token = Duration::from_millis(ms(seen));
            counts.push(count);
            seen += count;
        }
        counts
    }

    #[test]
    fn quick_tokens_fill_the_ring() {
        assert_eq!(looks(64, |_| 0), [1, 2, 4, 8, 16, 16, 16]);
        assert_eq!(looks(64, |_| 15), [1, 2, 4, 8, 16, 16, 16], "a quarter of a second is sixteen of them");
        let slow_at_first = looks(128, |seen| if seen == 1 { 900 } else { 5 });
        assert_eq!(slow_at_first[..2], [1, 1], "kernels are made for the first one");
        assert_eq!(slow_at_first.last(), Some(&16), "{slow_at_first:?}");
        assert_eq!(ahead(64, Duration::from_secs(9), Duration::MAX), HISTORY, "who counts waits for ever");
    }

    #[test]
    fn slow_tokens_are_shown_soon() {
        for ms in [16, 40, 100, 126, 250, 1500, 100_000] {
            for (i, count) in looks(80, |_| ms).into_iter().enumerate().skip(1) {
                assert!(count == 1 || count as u64 * ms <= 250, "look {i}: {count} tokens of {ms} ms");
            }
        }
        assert!(looks(80, |_| 1500).iter().all(|count| *count == 1), "every token as soon as it is there");
        let slower = looks(200, |seen| if seen < 100 { 2 } else { 400 });
        assert_eq!(slower.last(), Some(&1), "a device that grew slow is noticed: {slower:?}");
    }
}
