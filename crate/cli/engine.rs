//! Which model and which device a call means.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::args::{DeviceChoice, Engine, NumericsChoice};
use super::out::Aside;
use crate::error::{Code, Error, Result};
use crate::pack::{Checkpoint, Pack, Source};
use crate::session::Model;
use crate::tensor::gpu::{Gpu, Options};
use crate::tensor::plan::{Cancel, Run};
use crate::tensor::{Device, Numerics};

/// The model that is used where none is named.
const DEFAULT: &str = "groma-s";

/// A model's files, opened.
pub(super) enum Opened {
    /// A model pack.
    Pack(Box<Pack>),
    /// A folder of official form.
    Checkpoint(Box<Checkpoint>),
}

impl Opened {
    /// As a source of weights.
    #[must_use]
    pub(super) fn source(&self) -> &dyn Source {
        match self {
            Opened::Pack(p) => p.as_ref(),
            Opened::Checkpoint(c) => c.as_ref(),
        }
    }
}

/// Where models of a name may lie, in the order in which they are looked for.
fn places(name: &str) -> Vec<PathBuf> {
    let data = data_folder().map(|d| d.join("groma/models").join(name));
    data.into_iter().chain([Path::new("dist/models").join(name)]).collect()
}

/// The folder where a user's programs keep data.
fn data_folder() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || var("HOME");
    var("XDG_DATA_HOME").filter(|p| p.is_absolute()).or_else(|| {
        if cfg!(windows) {
            var("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            home().map(|h| h.join("Library/Application Support"))
        } else {
            home().map(|h| h.join(".local/share"))
        }
    })
}

fn is_model(path: &Path) -> bool {
    path.join("model.json").is_file()
        || path.join("config.json").is_file()
        || path.ends_with("model.json") && path.is_file()
}

/// Finds the model that is meant: a path, or the name of an installed pack.
pub(super) fn find(model: Option<&str>) -> Result<PathBuf> {
    let name = model.filter(|m| !m.is_empty()).unwrap_or(DEFAULT);
    let given = PathBuf::from(name);
    if model.is_some() && is_model(&given) {
        return Ok(given);
    }
    // A folder that is there is what was meant, even if it is no model: its own error says more than "not found".
    if model.is_some() && given.exists() {
        return Err(Error::new(Code::NoModel, "no model here")
            .expected("model.json or config.json", "neither")
            .at(name));
    }
    let plain = given.components().count() == 1;
    let places = if plain { places(name) } else { vec![given] };
    places.iter().find(|p| is_model(p)).cloned().ok_or_else(|| {
        let looked = places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" and ");
        Error::new(Code::NoModel, format!("there is no model {name} (looked for {looked})"))
    })
}

/// Opens the model that is meant, without reading its weights.
pub(super) fn open(model: Option<&str>) -> Result<Opened> {
    let path = find(model)?;
    let is_pack = path.is_file() || path.join("model.json").is_file();
    Ok(if is_pack {
        Opened::Pack(Box::new(Pack::open(&path)?))
    } else {
        // Also a folder of our own form, whose bases lie elsewhere.
        Opened::Checkpoint(Box::new(Checkpoint::open_with(&path, None)?))
    })
}

/// Opens the device that is meant.
pub(super) async fn device(choice: DeviceChoice, numerics: NumericsChoice) -> Result<Device> {
    let cpu = Device::Cpu(match numerics {
        NumericsChoice::Fast => Numerics::Fast,
        NumericsChoice::Exact => Numerics::Exact,
    });
    match choice {
        DeviceChoice::Cpu => Ok(cpu),
        DeviceChoice::Gpu => gpu().await,
        // Kernels on a software adapter are many times slower than the processor's own code.
        DeviceChoice::Auto => Ok(gpu().await.ok().filter(is_real).unwrap_or(cpu)),
    }
}

/// What `GROMA_ADAPTER`, `GROMA_LIMITS` and their like ask for.
async fn gpu() -> Result<Device> {
    Ok(Device::Gpu(Gpu::create(Options::from_env()).await?))
}

fn is_real(device: &Device) -> bool {
    matches!(device, Device::Gpu(gpu) if !gpu.is_software())
}

/// Compares every part of a pack with its hash. A checkpoint has none.
pub(super) async fn check(opened: &Opened, aside: &Aside, cancel: &Cancel) -> Result<()> {
    let Opened::Pack(pack) = opened else { return Ok(()) };
    aside.stage("checking the model");
    with_run(aside, cancel, async |run| pack.verify(run)).await
}

/// Opens device and model, and reads the weights.
pub(super) async fn load(engine: &Engine, aside: &Aside, cancel: &Cancel) -> Result<Rc<Model>> {
    // A missing model is cheaper to find out than a device.
    let opened = open(engine.model.as_deref())?;
    let device = device(engine.device, engine.numerics).await?;
    check(&opened, aside, cancel).await?;
    aside.stage("loading the model");
    let model = with_run(aside, cancel, async |run| Model::load(opened.source(), &device, run).await).await?;
    if let Device::Gpu(_) = device {
        aside.stage("warming up");
        with_run(aside, cancel, async |run| model.warm_up(run).await).await?;
    }
    Ok(model)
}

/// Runs something that tells its progress and can be stopped.
pub(super) async fn with_run<T>(
    aside: &Aside,
    cancel: &Cancel,
    work: impl AsyncFnOnce(&Run<'_>) -> Result<T>,
) -> Result<T> {
    let progress = |done, all| aside.progress(done, all);
    let mut run = Run::default();
    run.cancel = cancel.clone();
    run.progress = Some(&progress);
    work(&run).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_folder_a_file_or_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let text = path.to_str().unwrap();
        assert_eq!(find(Some(text)).unwrap_err().code, Code::NoModel);
        std::fs::create_dir(&path).unwrap();
        let e = find(Some(text)).unwrap_err();
        assert!(e.to_string().ends_with("no model here: expected model.json or config.json, got neither"), "{e}");
        std::fs::write(path.join("model.json"), "{}").unwrap();
        assert_eq!(find(Some(text)).unwrap(), path);
        let file = path.join("model.json");
        assert_eq!(find(file.to_str()).unwrap(), file);
        let e = find(Some("no-such-name")).unwrap_err();
        assert_eq!(e.code, Code::NoModel);
        assert!(e.to_string().contains("dist/models/no-such-name"), "{e}");
    }
}
