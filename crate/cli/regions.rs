//! `regions`: what the model sees before any language.

use std::process::ExitCode;

use serde_json::json;

use super::args::Regions;
use super::engine::{self, with_run};
use super::out::{Aside, Out};
use super::overlay::{self, Mark};
use super::{photo, questions};
use crate::error::{At, Result};
use crate::groma::select::Rules;
use crate::session::Photo;
use crate::tensor::plan::Cancel;

/// Lists the regions of a photo, best first.
pub(super) async fn list(args: &Regions, cancel: &Cancel) -> Result<ExitCode> {
    if let Some(file) = &args.overlay {
        overlay::format_of(file)?;
    }
    let rgb = photo::read(&args.photo)?;
    let aside = Aside::new(args.output.quiet);
    let model = engine::load(&args.engine, &aside, cancel).await?;
    aside.stage("looking at the photo");
    let photo = with_run(&aside, cancel, async |run| Photo::open(&model, &rgb, run).await).await?;
    aside.clear();
    let own = photo.rules();
    let rules = Rules {
        nms: args.nms.unwrap_or(own.nms),
        score: args.min_score.unwrap_or(own.score),
        max: args.limit.unwrap_or(own.max),
        ..own
    };
    let regions = photo.list(&rules);
    let mut out = Out::stdout();
    if args.output.json {
        let list: Vec<_> = regions.iter().map(questions::region_json).collect();
        out.json(&json!({ "photo": { "width": rgb.width, "height": rgb.height }, "regions": list }))?;
    } else {
        let lines: String = regions.iter().map(|r| questions::line(r, &out)).collect();
        out.say(&lines)?;
    }
    if let Some(file) = &args.overlay {
        let marks: Vec<Mark> = regions.iter().map(|r| Mark { number: Some(r.id), bbox: r.bbox }).collect();
        overlay::save(&rgb, &marks, file).at("overlay")?;
    }
    Ok(ExitCode::SUCCESS)
}
