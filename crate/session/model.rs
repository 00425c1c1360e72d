//! A model on a device: configuration, weights, tokenizer, and the plan from pixels to regions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::photo::plan_tokens;
use super::text::Text;
use crate::error::{Code, Error, Result};
use crate::groma::config::{Config, OneOrMany};
use crate::groma::preprocess::{self, Rgb};
use crate::groma::prompt::Special;
use crate::groma::proposer::Proposals;
use crate::groma::tokens::Tokens;
use crate::groma::weights::{Components, Weights, specs};
use crate::groma::{bridge, encoder, proposer, region_encoder};
use crate::pack::Source;
use crate::tensor::ops::qkv::rope_table;
use crate::tensor::plan::{Compiled, Run};
use crate::tensor::{DType, Device, Plan, Tensor, probe};

/// A model, ready to look at photos and to answer.
#[derive(Debug)]
pub struct Model {
    pub(super) config: Config,
    pub(super) device: Device,
    pub(super) weights: Weights,
    pub(super) components: Components,
    tokens: Option<Tokens>,
    special: Option<Special>,
    pub(super) rope: Option<Tensor>,
    vision: RefCell<Option<Rc<Vision>>>,
}

/// The plan from pixels to everything that depends on the photo only, and where its results lie.
#[derive(Debug)]
pub struct Vision {
    /// The plan.
    pub compiled: Compiled,
    /// `[3, S, S]`.
    pub pixels: Tensor,
    /// What it makes.
    pub seen: Seen,
}

/// What depends on the photo only.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Image tokens, `[N / k², H]`.
    pub image: Option<Tensor>,
    /// Boxes and scores.
    pub proposals: Option<Proposals>,
    /// Fused maps, `[side², E]` each.
    pub maps: Vec<Tensor>,
}

impl Model {
    /// Reads a model onto a device. Components that the source lacks are left out; what needs them fails when asked.
    ///
    /// # Errors
    /// `pack-invalid` names tensor or file, expected and got; `out-of-memory`, `device-lost`, `aborted`.
    pub async fn load(source: &dyn Source, device: &Device, run: &Run<'_>) -> Result<Rc<Self>> {
        let mut config = Config::from_json(source.config())?;
        if let Some(stops) = source.stops() {
            config.llm.eos_token_id = OneOrMany::Many(stops);
        }
        let components = Components::of(source);
        if components.proposer {
            config.check_classes()?;
        }
        let list = specs(&config, components, &|name| source.info(name).map(|i| i.shape));
        let weights = Weights::load(&list, source, device, run).await?;
        let tokens = source.tokenizer()?.map(|json| Tokens::from_bytes(&json)).transpose()?;
        Self::new(config, components, device, weights, tokens)
    }

    /// A model of weights that mean nothing, made on the device: for measuring what its configuration costs. It has no
    /// tokenizer; matrices are of type `quant` where their rows allow it, else f16. A configuration without a
    /// `perceiver_cfg` is a bare language model.
    ///
    /// # Errors
    /// `pack-invalid` for the configuration; `out-of-memory`, `device-lost`, `aborted`.
    pub async fn random(json: &serde_json::Value, quant: DType, device: &Device, run: &Run<'_>) -> Result<Rc<Self>> {
        let config = Config::from_json(json)?;
        let eyes = json.get("perceiver_cfg").is_some();
        let components = Components { encoder: eyes, proposer: eyes, regions: eyes, bridge: eyes, llm: true };
        let list = specs(&config, components, &|_| None);
        let weights = Weights::random(&list, quant, device, run).await?;
        Self::new(config, components, device, weights, None)
    }

    fn new(
        config: Config,
        components: Components,
        device: &Device,
        weights: Weights,
        tokens: Option<Tokens>,
    ) -> Result<Rc<Self>> {
        // a bare language model has no places for image and regions; in some checkpoints theirs are rows of the base table
        let special = match tokens.as_ref().map(Special::of).transpose() {
            Err(_) if config.num_new_token == 0 => None,
            found => found?,
        };
        let l = &config.llm;
        let rope = if components.llm {
            let (positions, width) = (l.max_position_embeddings, l.head_width());
            let table = rope_table(positions, width, l.rope_theta);
            Some(device.tensor_f32("decoder.rope", &[positions, width], &table)?)
        } else {
            None
        };
        Ok(Rc::new(Self {
            config,
            device: device.clone(),
            weights,
            components,
            tokens,
            special,
            rope,
            vision: RefCell::new(None),
        }))
    }

    /// Makes ready what the first photo and the first question would wait for: the device's rate is measured, pipelines
    /// and the plan of the photo are made. Nothing at all on the processor.
    ///
    /// # Errors
    /// `out-of-memory`, `device-lost`, `aborted`.
    pub async fn warm_up(self: &Rc<Self>, run: &Run<'_>) -> Result<()> {
        const PARTS: usize = 3;
        if let Device::Cpu(_) = self.device {
            return Ok(());
        }
        probe::teach_rate(&self.device, run).await?;
        run.progress(1, PARTS);
        run.breathe().await?;
        if self.components.encoder {
            let vision = self.vision()?;
            if self.components.regions {
                plan_tokens(self, &vision.seen.maps, &[[0.5, 0.5, 1.0, 1.0]], false)?.0.prepare()?;
            }
        }
        run.progress(2, PARTS);
        run.breathe().await?;
        if self.components.llm {
            Text::new(self)?.prepare()?;
        }
        run.progress(PARTS, PARTS);
        Ok(())
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device it lives on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The weights.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What the source held.
    #[must_use]
    pub fn components(&self) -> Components {
        self.components
    }

    /// Positions that prompt and answer together may take.
    #[must_use]
    pub fn context_length(&self) -> usize {
        self.config.llm.max_position_embeddings
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// `pack-invalid` where there is none.
    pub fn tokens(&self) -> Result<&Tokens> {
        self.tokens.as_ref().ok_or_else(|| Error::new(Code::PackInvalid, "the model has no tokenizer"))
    }

    /// The ids that stand for image, regions and boxes.
    ///
    /// # Errors
    /// `pack-invalid` where the model has no eyes, or its tokenizer lacks them.
    pub fn special(&self) -> Result<&Special> {
        self.special.as_ref().ok_or_else(|| Error::new(Code::PackInvalid, "the tokenizer has no tokens for regions"))
    }

    /// The rotation table.
    pub(super) fn rope(&self) -> Result<&Tensor> {
        self.rope.as_ref().ok_or_else(|| Error::new(Code::PackInvalid, "the model has no language model"))
    }

    /// Records the plan from pixels on; `given` replaces stage tensors for whoever compares stages.
    ///
    /// # Errors
    /// `out-of-memory`; `internal` where stages do not fit each other.
    pub fn plan_vision(&self, tapped: bool, given: HashMap<String, Tensor>) -> Result<Vision> {
        let (c, w, d) = (&self.config, &self.weights, &self.device);
        let zeros = |label: &str, shape: &[usize]| d.zeros(label, shape, DType::F32);
        let pixels = zeros("photo.pixels", &[3, c.image_size, c.image_size])?;
        let mut p = Plan::new(d, tapped).with_given(given);
        let states = encoder::record(&mut p, c, w, &pixels)?;
        let mut seen = Seen::default();
        if self.components.bridge {
            let image = zeros("photo.image_tokens", &[c.image_tokens(), c.llm.hidden_size])?;
            bridge::record(&mut p, c, w, &states, &image)?;
            seen.image = Some(image);
        }
        if self.components.proposer {
            let q = c.proposer.queries();
            let out = Proposals { boxes: zeros("photo.boxes", &[q, 4])?, scores: zeros("photo.scores", &[q, 1])? };
            proposer::record(&mut p, c, w, &states, &out)?;
            seen.proposals = Some(out);
        } else if tapped {
            // a bare encoder: its goldens hold what a proposer would read
            proposer::record_input(&mut p, &states)?;
        }
        if self.components.regions {
            let e = c.region_channels();
            seen.maps = region_encoder::sides(c)
                .iter()
                .enumerate()
                .map(|(l, side)| zeros(&format!("photo.map.{l}"), &[side * side, e]))
                .collect::<Result<_>>()?;
            region_encoder::record_maps(&mut p, c, w, &states, &seen.maps)?;
        }
        Ok(Vision { compiled: p.compile()?, pixels, seen })
    }

    /// The kept plan from pixels on, made at the first photo or while warming up.
    ///
    /// # Errors
    /// As [`Model::plan_vision`].
    pub fn vision(&self) -> Result<Rc<Vision>> {
        if let Some(v) = &*self.vision.borrow() {
            return Ok(v.clone());
        }
        let v = Rc::new(self.plan_vision(false, HashMap::new())?);
        *self.vision.borrow_mut() = Some(v.clone());
        Ok(v)
    }

    /// The pixels of a photo as the encoder reads them: resized ignoring the aspect ratio, normalised. `[3, S, S]`.
    #[must_use]
    pub fn pixels(&self, rgb: &Rgb) -> Vec<f32> {
        preprocess::normalise(&preprocess::resize_bicubic(rgb, self.config.image_size))
    }
}
