//! The browser's front: the only wasm-bindgen, typed, thin, no model knowledge.
//!
//! JavaScript's side of it is `www/worker/wasm.ts`. Everything that fails throws `{ reason, message, details }`, the form
//! in which errors travel on to the page. Calls on one photo must not overlap; the worker sees to it.
#![expect(clippy::missing_errors_doc, reason = "the same for all: what the engine's own function says, thrown")]

mod bench;
mod breath;
mod error;
mod pack;
mod types;

use std::rc::Rc;

use js_sys::Function;
use wasm_bindgen::prelude::*;

use self::error::{Thrown, thrown};
use self::pack::{JsPack, PackReader};
use crate::error::{Code, Error};
use crate::groma::grounding::Event;
use crate::groma::preprocess::{self, Rgb};
use crate::session;
use crate::tensor::gpu::Gpu;
use crate::tensor::plan::{Cancel, Run};
use crate::tensor::{Device, Numerics};

/// Tells `report` what a panic said before the module traps. To be called once, first.
#[wasm_bindgen(js_name = onPanic)]
pub fn on_panic(report: Function) {
    // Only one thread: what a hook must be able to do elsewhere is not asked of it here.
    struct Report(Function);
    // SAFETY: without the `atomics` target feature wasm has a single thread, so nothing is ever sent or shared.
    unsafe impl Send for Report {}
    // SAFETY: as above.
    unsafe impl Sync for Report {}
    let report = Report(report);
    std::panic::set_hook(Box::new(move |info| {
        let report = &report;
        console_error_panic_hook::hook(info);
        // The report is the last thing before the trap; a failing one has no one left to tell.
        drop(report.0.call1(&JsValue::NULL, &JsValue::from(info.to_string())));
    }));
}

/// Stops what it was given to.
#[wasm_bindgen]
#[derive(Debug, Default)]
pub struct Stop(Cancel);

#[wasm_bindgen]
impl Stop {
    /// A fresh one.
    #[must_use]
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop; it takes effect at the next breath.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

/// A model that is ready to look at photos.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Model(Rc<session::Model>);

#[wasm_bindgen]
impl Model {
    /// Makes a model from a pack: `description` is the text of its `model.json`, `pack` reads its files. `device` is
    /// "gpu" or "cpu", `debug` a `Debug`.
    pub async fn load(
        description: String,
        pack: PackReader,
        device: String,
        debug: types::JsDebug,
        stop: &Stop,
        progress: Option<Function>,
    ) -> Result<Model, Thrown> {
        let report = reporter(progress);
        let tell = |done, all| report.iter().for_each(|f| f(done, all));
        let source = JsPack::open(description.as_bytes(), pack).map_err(thrown)?;
        let device = open_device(&device, &types::debug(debug).map_err(thrown)?).await.map_err(thrown)?;
        // one bar: the weights are nine tenths of it, making kernels ready the last
        let weights: Report = Some(Box::new(|done, all| tell(9 * done, 10 * all)));
        let model = session::Model::load(&source, &device, &run(stop, &weights)).await.map_err(thrown)?;
        let warm: Report = Some(Box::new(|done, all| tell(9 * all + done, 10 * all)));
        model.warm_up(&run(stop, &warm)).await.map_err(thrown)?;
        tell(1, 1);
        Ok(Self(model))
    }

    /// Tokens that prompt and answer may have together.
    #[must_use]
    #[wasm_bindgen(getter, js_name = contextLength)]
    pub fn context_length(&self) -> usize {
        self.0.context_length()
    }

    /// Looks at a photo given as the bytes of its file (PNG, JPEG, WebP), turned by its EXIF orientation or as stored.
    #[wasm_bindgen(js_name = openFile)]
    pub async fn open_file(
        &self,
        bytes: Vec<u8>,
        turned: bool,
        stop: &Stop,
        progress: Option<Function>,
    ) -> Result<Photo, Thrown> {
        let rgb = preprocess::decode_with(&bytes, turned).map_err(thrown)?;
        drop(bytes);
        self.open(&rgb, stop, progress).await
    }

    /// Looks at a photo given as pixels, four bytes each, of which the fourth is ignored.
    #[wasm_bindgen(js_name = openPixels)]
    pub async fn open_pixels(
        &self,
        width: usize,
        height: usize,
        rgba: Vec<u8>,
        stop: &Stop,
        progress: Option<Function>,
    ) -> Result<Photo, Thrown> {
        let rgb = Rgb::from_rgba(width, height, &rgba).map_err(thrown)?;
        drop(rgba);
        self.open(&rgb, stop, progress).await
    }

    async fn open(&self, rgb: &Rgb, stop: &Stop, progress: Option<Function>) -> Result<Photo, Thrown> {
        let report = reporter(progress);
        session::Photo::open(&self.0, rgb, &run(stop, &report)).await.map(Photo).map_err(thrown)
    }
}

/// A photo that was looked at, and the conversation about it.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Photo(session::Photo);

#[wasm_bindgen]
impl Photo {
    /// Its width in pixels, as it is seen.
    #[must_use]
    #[wasm_bindgen(getter)]
    pub fn width(&self) -> usize {
        self.0.width()
    }

    /// Its height in pixels, as it is seen.
    #[must_use]
    #[wasm_bindgen(getter)]
    pub fn height(&self) -> usize {
        self.0.height()
    }

    /// What the proposer found, as `Region[]`.
    pub fn regions(&self) -> Result<types::JsRegions, Thrown> {
        types::regions(&self.0.regions()).map_err(thrown)
    }

    /// Answers a `TaskRequest`; `on_segment` gets every `Segment` as it grows. Gives an `AnswerResult`.
    pub async fn ask(
        &mut self,
        request: types::JsRequest,
        on_segment: Function,
        stop: &Stop,
    ) -> Result<types::JsAnswer, Thrown> {
        let request = types::request(request).map_err(thrown)?;
        let run = run(stop, &None);
        let known = self.0.regions_for(&request.task, &run).await.map_err(thrown)?;
        let mut on = |event: &Event| {
            if let Ok(segment) = types::segment(event, &known) {
                // A listener that throws must not end the answer.
                drop(on_segment.call1(&JsValue::NULL, &segment));
            }
        };
        let answer = self.0.ask(&request, &run, &mut on).await.map_err(thrown)?;
        types::answer(&answer).map_err(thrown)
    }

    /// Takes a `TaskRequest` as asked and its answer's tokens as said, so that a conversation goes on.
    pub async fn recall(&mut self, request: types::JsRequest, tokens: Vec<u32>, stop: &Stop) -> Result<(), Thrown> {
        let request = types::request(request).map_err(thrown)?;
        self.0.recall(&request.task, &tokens, &run(stop, &None)).await.map_err(thrown)
    }

    /// Begins a new conversation.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

type Report<'a> = Option<Box<dyn Fn(usize, usize) + 'a>>;

fn reporter(progress: Option<Function>) -> Report<'static> {
    progress.map(|f| {
        Box::new(move |done: usize, all: usize| {
            // A listener that throws must not end the run.
            drop(f.call2(&JsValue::NULL, &JsValue::from(done), &JsValue::from(all)));
        }) as Box<dyn Fn(usize, usize)>
    })
}

fn run<'a>(stop: &Stop, report: &'a Report<'_>) -> Run<'a> {
    let mut run = Run::default();
    run.cancel = stop.0.clone();
    run.progress = report.as_deref();
    run.breath = Some(Rc::new(breath::breath));
    run
}

async fn open_device(device: &str, debug: &types::Debug) -> crate::Result<Device> {
    match device {
        "cpu" if debug.numerics.as_deref() == Some("exact") => Ok(Device::Cpu(Numerics::Exact)),
        "cpu" => Ok(Device::Cpu(Numerics::Fast)),
        "gpu" => Ok(Device::Gpu(Gpu::create(debug.gpu.options()).await?)),
        _ => Err(Error::new(Code::Usage, "no such device").expected("gpu or cpu", device)),
    }
}
