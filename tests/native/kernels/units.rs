//! How long the processor's twins go without letting others run, by what their work costs.

use std::collections::HashMap;

use groma::groma::decoder::{Ending, Memory, record_chunk, record_step};
use groma::groma::region_encoder::{record_tokens, sides};
use groma::session::Model;
use groma::tensor::plan::Run;
use groma::tensor::units::UNIT;
use groma::tensor::{DType, Device, Plan};
use serde_json::{Value, json};

/// 25 ms where a core makes 10 billion operations a second: with the longest time without a breath, 50.
const MOST: u64 = UNIT / 4 * 5;

/// Asserts that units of a plan are short on average; tiles and cuts are of nearly one size (`units.rs`).
fn check(plan: &Plan) {
    for step in plan.steps() {
        let (name, cost, units) = (step.op.name(), step.op.cost(plan), step.op.units(plan).max(1));
        assert!(cost > 0, "{name} in {} costs nothing", step.label);
        assert!(cost <= units as u64 * MOST, "{name} in {}: {cost} in {units} units", step.label);
    }
}

/// All plans of a model of noise: a photo, its regions, a chunk of a prompt, a token.
fn plans(config: &Value, rows: usize) {
    let device = Device::cpu();
    let model = pollster::block_on(Model::random(config, DType::Q4_0, &device, &Run::default())).expect("a model");
    let (c, w) = (model.config(), model.weights());
    let vision = model.plan_vision(false, HashMap::new()).expect("records");
    check(vision.compiled.plan());

    let zeros = |label: &str, shape: &[usize]| device.zeros(label, shape, DType::F32).expect("fits");
    let mut p = Plan::new(&device, false);
    let regions = c.max_region_num;
    let (boxes, rois) = (zeros("boxes", &[regions, 4]), zeros("rois", &[regions, 4]));
    let out = zeros("regions", &[regions, c.llm.hidden_size]);
    record_tokens(&mut p, c, w, &vision.seen.maps, &boxes, &rois, &out).expect("records");
    assert_eq!(vision.seen.maps.len(), sides(c).len());
    check(&p);

    let memory = Memory::new(&device, c, c.llm.max_position_embeddings).expect("fits");
    let rope = zeros("rope", &[c.llm.max_position_embeddings, c.llm.head_width()]);
    for ending in [Ending::None, Ending::Greedy] {
        let mut p = Plan::new(&device, false);
        record_chunk(&mut p, c, w, &rope, &memory, None, None, rows, ending).expect("records");
        check(&p);
    }
    let mut p = Plan::new(&device, false);
    record_step(&mut p, c, w, &rope, &memory, Ending::Greedy).expect("records");
    check(&p);
}

#[test]
fn units_of_groma_s_are_short() {
    let mut config: Value = serde_json::from_str(include_str!("../../../models/groma-s/config.json")).expect("JSON");
    config["llm_cfg"]["num_hidden_layers"] = json!(1);
    plans(&config, 128);
}

/// The paper's sizes and four levels, with as few layers as there may be.
#[test]
fn units_of_the_papers_model_are_short() {
    let text = include_str!("../../../training/configs/groma-7b/config.json");
    let mut config: Value = serde_json::from_str(text).expect("JSON");
    config["perceiver_cfg"]["vis_encoder_cfg"]["num_hidden_layers"] = json!(4);
    let proposer = &mut config["perceiver_cfg"]["ddetr_cfg"];
    proposer["num_feature_levels"] = json!(4);
    proposer["encoder_layers"] = json!(1);
    proposer["decoder_layers"] = json!(1);
    config["llm_cfg"]["num_hidden_layers"] = json!(1);
    config["region_encoder_cfg"] = json!({ "num_fuse": 1 });
    plans(&config, 512);
}
