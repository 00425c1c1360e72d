//! `info`: which model and which device would be used, without reading the weights.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::Info;
use super::engine::{self, Opened};
use super::out::Out;
use crate::error::Result;
use crate::groma::config::Config;
use crate::pack::{Pack, TensorInfo};
use crate::tensor::{DType, Device};

/// Quantised blocks cover this many numbers of a row.
const BLOCK: usize = 32;

/// Says what there is.
pub(super) async fn info(args: &Info) -> Result<ExitCode> {
    let opened = engine::open(args.engine.model.as_deref())?;
    let config = Config::from_json(opened.source().config())?;
    // Without the device that was asked for there is still a model to speak of, before the call fails.
    let device = engine::device(args.engine.device, args.engine.numerics).await;
    let told = match &device {
        Ok(d) => describe(d),
        Err(e) => json!({ "kind": null, "reason": e.code.as_str(), "message": e.to_string() }),
    };
    let mut all = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": model(&opened, args),
        "device": told,
        "context_length": config.llm.max_position_embeddings,
        "image_size": config.image_size,
        "image_tokens": config.image_tokens(),
        "max_regions": config.max_region_num,
    });
    if let Opened::Pack(pack) = &opened {
        all["kept_f16"] = json!(kept_f16(pack));
    }
    let mut out = Out::stdout();
    if args.output.json {
        out.json(&all)?
    } else {
        out.say(&text(&all))?
    }
    device.map(|_| ExitCode::SUCCESS)
}

/// A device in a few words.
pub(super) fn describe(device: &Device) -> Value {
    match device {
        Device::Cpu(numerics) => json!({ "kind": "cpu", "numerics": format!("{numerics:?}").to_lowercase() }),
        Device::Gpu(gpu) => {
            let i = gpu.info();
            json!({
                "kind": "gpu", "name": i.name, "type": i.kind, "backend": i.backend,
                "limits": { "binding": i.binding, "buffer": i.buffer },
            })
        }
    }
}

fn model(opened: &Opened, args: &Info) -> Value {
    let place = engine::find(args.engine.model.as_deref()).map(|p| p.display().to_string()).unwrap_or_default();
    match opened {
        Opened::Checkpoint(_) => json!({ "name": null, "kind": "checkpoint", "place": place }),
        Opened::Pack(pack) => {
            let m = pack.index().manifest();
            json!({
                "name": m.name, "kind": "pack", "place": place, "licence": m.licence, "bytes": m.total,
                "quantisation": m.quantisation, "parts": m.parts().count(),
            })
        }
    }
}

/// Matrices whose rows no block fits: they stay f16 whatever type was asked for.
fn kept_f16(pack: &Pack) -> Vec<&str> {
    let odd = |i: &TensorInfo| i.dtype == DType::F16 && i.shape.len() == 2 && !i.shape[1].is_multiple_of(BLOCK);
    pack.index().tensors().filter(|(_, t)| odd(&t.info)).map(|(name, _)| name).collect()
}

/// Bytes for people.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The same for people.
fn text(all: &Value) -> String {
    let word = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let list = |v: &Value| v.as_array().map_or_else(String::new, |a| a.iter().map(word).collect::<Vec<_>>().join(", "));
    let (model, device) = (&all["model"], &all["device"]);
    let mut lines = vec![format!("groma {}", word(&all["version"])), format!("model    {}", word(&model["place"]))];
    if model["kind"] == "pack" {
        let types = model["quantisation"].as_object().into_iter().flatten();
        let types = types.map(|(component, t)| format!("{component} {}", word(t))).collect::<Vec<_>>().join(", ");
        lines.push(format!("name     {}", word(&model["name"])));
        lines.push(format!("licence  {}", list(&model["licence"])));
        lines.push(format!("size     {} in {} parts", megabytes(model["bytes"].as_u64().unwrap_or(0)), model["parts"]));
        lines.push(format!("types    {types}"));
    }
    let side = &all["image_size"];
    lines.push(format!(
        "context  {} positions, {} of them for a photo of {side} x {side} pixels",
        all["context_length"], all["image_tokens"]
    ));
    lines.push(match device["kind"].as_str() {
        Some(kind) => format!(
            "device   {kind}{}",
            device.get("name").or(device.get("numerics")).map(|n| format!(" ({})", word(n))).unwrap_or_default()
        ),
        None => format!("device   none: {}", word(&device["message"])),
    });
    let odd = all["kept_f16"].as_array().map_or(0, Vec::len);
    if odd > 0 {
        lines
            .push(format!("f16      {odd} matrices whose rows are no multiple of {BLOCK}: {}", list(&all["kept_f16"])));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_told_in_lines() {
        let all = json!({
            "version": "1.2.3",
            "model": { "name": "m", "kind": "pack", "place": "p/m", "licence": ["Apache-2.0", "MIT"], "bytes": 1_500_000,
                       "quantisation": { "attention": "q8_0", "mlp": "q4_1" }, "parts": 3 },
            "device": { "kind": "cpu", "numerics": "fast" },
            "context_length": 2048, "image_size": 448, "image_tokens": 256, "kept_f16": ["a.weight"],
        });
        let want = "groma 1.2.3\nmodel    p/m\nname     m\nlicence  Apache-2.0, MIT\nsize     1.5 MB in 3 parts\n\
            types    attention q8_0, mlp q4_1\ncontext  2048 positions, 256 of them for a photo of 448 x 448 pixels\n\
            device   cpu (fast)\nf16      1 matrices whose rows are no multiple of 32: a.weight\n";
        assert_eq!(text(&all), want);
    }
}
