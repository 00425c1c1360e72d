"""make.py <reference.py> <folder>…

Makes the golden folders `tiny4` and `tiny5`: random weights, drawn photos, and what the executable specification `reference.py` says of them
in float64. The same script gives the same bytes. Tokenizer and prompts are those of `tiny` and `tiny2`. Needs torch, safetensors, Pillow and
tokenizers. It stops where a discrete result lies nearer to its flipping than 100 times the float32 run's error: then take another seed.
"""

import hashlib
import importlib.util
import itertools
import json
import math
import pathlib
import sys

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
# The largest tensor that is stored whole, in numbers.
WHOLE = 2000
RATIO = 100
BOX_HIDDEN = 64
CASES = ("detect_all", "region_short", "region_long", "grounded_caption", "two_turn", "no_region", "shuffled", "stop")

TINY4 = dict(
    about="Two levels, one stage with refinement, ChatML, one key head, heads wider than the width's share, merge 3, three region levels, an image"
    " layer counted from the front, box heads 64 wide.",
    seed=11,
    like="tiny",
    photos=dict(A=(150, 110), B=(97, 140)),
    config=dict(
        nms_thres=0.5, box_score_thres=0.15, max_region_num=100, image_size=84, image_token_merge=3, chat_template="chatml",
        perceiver_cfg=dict(
            vis_output_layer=2,
            vis_encoder_cfg=dict(hidden_size=36, num_hidden_layers=3, num_attention_heads=3, mlp_ratio=4, image_size=98,
                                 patch_size=14, layer_norm_eps=1e-6),
            ddetr_cfg=dict(d_model=32, num_queries=14, two_stage_num_proposals=14, encoder_layers=1, decoder_layers=3,
                           encoder_ffn_dim=40, decoder_ffn_dim=40, encoder_attention_heads=4, decoder_attention_heads=4,
                           encoder_n_points=2, decoder_n_points=3, num_feature_levels=2, two_stage=False,
                           with_box_refine=True, id2label={"0": "LABEL_0"})),
        llm_cfg=dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1,
                     head_dim=24, rms_norm_eps=1e-5, rope_theta=50000.0, tie_word_embeddings=False, eos_token_id=[2, 0],
                     bos_token_id=None, max_position_embeddings=1024, vocab_size=520),
        region_encoder_cfg=dict(embed_dims=32, hidden_dims=40, pos_dims=16, num_groups=4, num_fuse=2, roi_size=3,
                                level_scales=[4, 2, 1], featmap_strides=[18.5, 37.5, 75.0], box_format="xyxy"),
        num_new_token=114))

TINY5 = dict(
    about="Three levels of an odd grid, two stages, Vicuna, tied, merge 1, patches of 10, one region level, four decoder layers of each kind, box"
    " heads 64 wide.",
    seed=7,
    like="tiny2",
    photos=dict(A=(128, 90), B=(80, 121)),
    config=dict(
        nms_thres=0.6, box_score_thres=0.15, max_region_num=9, image_size=50, image_token_merge=1,
        perceiver_cfg=dict(
            vis_output_layer=-1,
            vis_encoder_cfg=dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=50,
                                 patch_size=10, layer_norm_eps=1e-6),
            ddetr_cfg=dict(d_model=24, num_queries=18, two_stage_num_proposals=18, encoder_layers=2, decoder_layers=4,
                           encoder_ffn_dim=32, decoder_ffn_dim=48, encoder_attention_heads=3, decoder_attention_heads=2,
                           encoder_n_points=3, decoder_n_points=2, num_feature_levels=3, two_stage=True,
                           with_box_refine=True, id2label={"0": "LABEL_0"})),
        llm_cfg=dict(hidden_size=48, intermediate_size=80, num_hidden_layers=4, num_attention_heads=3, rms_norm_eps=1e-6,
                     rope_theta=10000.0, tie_word_embeddings=True, eos_token_id=2, bos_token_id=1,
                     max_position_embeddings=2048, vocab_size=430),
        region_encoder_cfg=dict(embed_dims=24, hidden_dims=32, pos_dims=12, num_groups=3, num_fuse=1, roi_size=4,
                                level_scales=[2], featmap_strides=[22.5]),
        num_new_token=114))

FOLDERS = dict(tiny4=TINY4, tiny5=TINY5)


def linear(name, outs, ins, gain=1.0, bias=True):
    yield name + ".weight", (outs, ins), 0.0, gain / math.sqrt(ins)
    if bias:
        yield name + ".bias", (outs,), 0.0, 0.2


def conv(name, outs, ins, side, bias=True):
    yield name + ".weight", (outs, ins, side, side), 0.0, 1.0 / (side * math.sqrt(ins))
    if bias:
        yield name + ".bias", (outs,), 0.0, 0.2


def deconv(name, outs, ins):
    yield name + ".weight", (ins, outs, 2, 2), 0.0, 1.0 / math.sqrt(ins)
    yield name + ".bias", (outs,), 0.0, 0.2


def norm(name, width, bias=True):
    yield name + ".weight", (width,), 1.0, 0.2
    if bias:
        yield name + ".bias", (width,), 0.0, 0.2


def vision(v):
    root, d, p = "perceiver.vis_encoder.", v["hidden_size"], v["patch_size"]
    yield root + "embeddings.cls_token", (1, 1, d), 0.0, 0.7
    yield root + "embeddings.position_embeddings", (1, 1 + (v["image_size"] // p) ** 2, d), 0.0, 0.7
    yield from conv(root + "embeddings.patch_embeddings.projection", d, 3, p)
    for i in range(v["num_hidden_layers"]):
        q = root + "encoder.layer.%d." % i
        for n in ("norm1", "norm2"):
            yield from norm(q + n, d)
        for n in ("query", "key", "value"):
            yield from linear(q + "attention.attention." + n, d, d)
        yield from linear(q + "attention.output.dense", d, d)
        yield from linear(q + "mlp.fc1", d * v["mlp_ratio"], d)
        yield from linear(q + "mlp.fc2", d, d * v["mlp_ratio"])
        for n in ("layer_scale1.lambda1", "layer_scale2.lambda1"):
            yield q + n, (d,), 1.0, 0.1
    yield from norm(root + "layernorm", d)


def deformable(name, d, heads, levels, points):
    yield from linear(name + ".value_proj", d, d)
    yield from linear(name + ".output_proj", d, d)
    yield from linear(name + ".attention_weights", heads * levels * points, d)
    yield name + ".sampling_offsets.weight", (2 * heads * levels * points, d), 0.0, 1.5 / math.sqrt(d)
    yield name + ".sampling_offsets.bias", (2 * heads * levels * points,), 0.0, 2.0


def proposer(c, wide):
    root, d, levels = "perceiver.ddetr_transformer.", c["d_model"], c["num_feature_levels"]
    for level in range(levels):
        p = "perceiver.input_proj.%d." % level
        kind = 1 if levels == 1 else levels - 1 - level
        if kind < 2:
            yield from conv(p + "0", d, wide, 1 if kind else 3)
            yield from norm(p + "1", d)
        else:
            yield from deconv(p + "0", d // 2, wide)
            yield from conv(p + "1", d, d // 2, 1)
            yield from norm(p + "2", d)
            yield from conv(p + "3", d, d, 3)
    yield root + "level_embed", (levels, d), 0.0, 0.7
    for i in range(c["encoder_layers"]):
        q = root + "encoder.layers.%d." % i
        yield from deformable(q + "self_attn", d, c["encoder_attention_heads"], levels, c["encoder_n_points"])
        yield from linear(q + "fc1", c["encoder_ffn_dim"], d)
        yield from linear(q + "fc2", d, c["encoder_ffn_dim"])
        for n in ("self_attn_layer_norm", "final_layer_norm"):
            yield from norm(q + n, d)
    for i in range(c["decoder_layers"]):
        q = root + "decoder.layers.%d." % i
        for n, gain in (("q_proj", 1.5), ("k_proj", 1.5), ("v_proj", 1.0), ("out_proj", 1.0)):
            yield from linear(q + "self_attn." + n, d, d, gain)
        yield from deformable(q + "encoder_attn", d, c["decoder_attention_heads"], levels, c["decoder_n_points"])
        yield from linear(q + "fc1", c["decoder_ffn_dim"], d)
        yield from linear(q + "fc2", d, c["decoder_ffn_dim"])
        for n in ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"):
            yield from norm(q + n, d)
    for i in range(c["decoder_layers"] + c["two_stage"]):
        q = root + "bbox_embed.%d.layers." % i
        yield from linear(q + "0", BOX_HIDDEN, d, 1.4)
        yield from linear(q + "1", BOX_HIDDEN, BOX_HIDDEN, 1.4)
        yield from linear(q + "2", 4, BOX_HIDDEN, 1.6)
    for i in range(c["decoder_layers"]):
        for n in ("coco", "sa1b"):
            yield from linear(root + "class_embed_%s.%d" % (n, i), 1, d, 2.0)
    if c["two_stage"]:
        yield root + "query_position_embeddings.weight", (c["two_stage_num_proposals"], d), 0.0, 0.7
        yield from linear(root + "class_embed_enc", 1, d, 2.0)
        yield from linear(root + "enc_output", d, d)
        yield from norm(root + "enc_output_norm", d)
        yield from linear(root + "pos_trans", 2 * d, 2 * d)
        yield from norm(root + "pos_trans_norm", 2 * d)
    else:
        yield root + "query_position_embeddings.weight", (c["num_queries"], 2 * d), 0.0, 0.7
        yield from linear(root + "reference_points", 2, d)


def regions(c, wide, hidden):
    e, root = c["embed_dims"], "region_encoder."
    for level in range(len(c["level_scales"])):
        yield from conv(root + "mlvl_fuse.input_conv.%d" % level, e, wide + 2, 1)
        yield from conv(root + "roi_align.pconvs.%d" % level, e, e, 3)
    for i in range(c["num_fuse"]):
        yield from conv(root + "mlvl_fuse.fuse_convs.%d.conv" % i, e, e, 3, bias=False)
        yield from norm(root + "mlvl_fuse.fuse_convs.%d.gn" % i, e)
    p, h = c["pos_dims"], c["hidden_dims"]
    yield from linear(root + "roi_align.pos_embedd.0", p, 4)
    yield from norm(root + "roi_align.pos_embedd.2", p)
    yield from linear(root + "roi_align.pos_embedd.3", h, p)
    yield from norm(root + "roi_align.pos_embedd.5", h)
    yield from linear(root + "roi_align.flatten_linear", h, e * c["roi_size"] ** 2)
    yield from linear(root + "roi_align.updims", hidden, h)


def language(c, new):
    h, f = c["hidden_size"], c["intermediate_size"]
    heads = c["num_attention_heads"]
    keys, width = c.get("num_key_value_heads", heads), c.get("head_dim", h // heads)
    for i in range(c["num_hidden_layers"]):
        q = "llm.model.layers.%d." % i
        for n in ("input_layernorm", "post_attention_layernorm"):
            yield from norm(q + n, h, bias=False)
        yield from linear(q + "self_attn.q_proj", heads * width, h, 1.5, bias=False)
        yield from linear(q + "self_attn.k_proj", keys * width, h, 1.5, bias=False)
        yield from linear(q + "self_attn.v_proj", keys * width, h, bias=False)
        yield from linear(q + "self_attn.o_proj", h, heads * width, bias=False)
        yield from linear(q + "mlp.gate_proj", f, h, bias=False)
        yield from linear(q + "mlp.up_proj", f, h, bias=False)
        yield from linear(q + "mlp.down_proj", h, f, bias=False)
    yield from norm("llm.model.norm", h, bias=False)
    tied = c["tie_word_embeddings"]
    yield "llm.model.embed_tokens.weight", (c["vocab_size"], h), 0.0, 0.3 if tied else 0.7
    yield "new_input_embs.weight", (new, h), 0.0, 0.7
    yield from linear("extra_lm_head", new, h, 1.6, bias=False)
    if not tied:
        yield from linear("llm.lm_head", c["vocab_size"], h, 1.6, bias=False)


def weights(config, seed):
    """Official names -> random float16 tensors."""
    v, llm = config["perceiver_cfg"]["vis_encoder_cfg"], config["llm_cfg"]
    wide, hidden, k = v["hidden_size"], llm["hidden_size"], config["image_token_merge"]
    everything = itertools.chain(
        vision(v), proposer(config["perceiver_cfg"]["ddetr_cfg"], wide), regions(config["region_encoder_cfg"], wide, hidden),
        linear("img_txt_bridge.0", hidden, wide * k * k), linear("img_txt_bridge.2", hidden, hidden),
        language(llm, config["num_new_token"]))
    random = np.random.Generator(np.random.PCG64(seed))
    return {name: torch.from_numpy((mean + std * random.standard_normal(shape)).astype(np.float16))
            for name, shape, mean, std in everything}


def photo(size, seed):
    """A gradient with shapes on it."""
    random = np.random.Generator(np.random.PCG64(seed))
    w, h = size
    x, y = np.meshgrid(np.linspace(0, 1, w), np.linspace(0, 1, h))
    ends = random.integers(30, 226, (2, 3))
    base = ends[0] + (ends[1] - ends[0]) * (0.6 * x + 0.4 * y)[..., None]
    picture = Image.fromarray(base.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for i in range(7):
        a, b = random.integers(0, (w, h), (2, 2))
        box = [*np.minimum(a, b).tolist(), *(np.maximum(a, b) + 8).tolist()]
        colour = tuple(random.integers(0, 256, 3).tolist())
        (draw.ellipse if i % 2 else draw.rectangle)(box, fill=colour)
    return picture


def run(spec, config, tensors, pictures, book, dtype):
    """Every stage of every photo and case; what each case answers; the numbers that decide."""
    model = spec.Groma(config, tensors, dtype)
    stages, seen, answers = {}, {}, {}
    for key, picture in pictures.items():
        model.rec = {}
        model.look(np.asarray(picture).copy())
        seen[key] = (model.image, model.boxes, model.scores, model.maps)
        stages.update({"%s/%s" % (key, n): t for n, t in model.rec.items()})
    for case in book["cases"]:
        model.rec = {}
        model.image, model.boxes, model.scores, model.maps = seen[case["image"]]
        answer = model.answer(case["input_ids"], spec.special_ids(book["special"].get), case.get("refer_boxes", []),
                              case.get("eos_token_id", book["eos_token_id"]), case["max_new_tokens"],
                              case.get("box_score_thres"), case.get("shuffle_seed"))
        answer["region_index"] = model.rec["sel.index"].tolist()
        answer["logits"] = torch.stack(model.all_logits)
        answers[case["id"]] = answer
        stages.update({"%s/%s" % (case["id"], n): t for n, t in model.rec.items()})
    return stages, answers


def ratio(gap, noise):
    return round(float(gap) / max(float(noise), 1e-12), 1)


def order(scores):
    """The least gap between neighbours of a descending list."""
    s = torch.sort(scores, descending=True).values
    return (s[:-1] - s[1:]).min() if len(s) > 1 else torch.tensor(math.inf)


def selection_margins(spec, config, case, exact, rough):
    """How far the selection of a case is from another one, in units of the float32 run's error."""
    boxes, scores = (exact[case["image"] + "/det." + n] for n in ("boxes", "scores"))
    boxes32, scores32 = (rough[case["image"] + "/det." + n].double() for n in ("boxes", "scores"))
    threshold = case.get("box_score_thres", config["box_score_thres"])
    noise = (scores - scores32).abs().max()
    out = dict(score_vs_threshold=ratio((scores - threshold).abs().min(), noise))
    refer = torch.tensor(case.get("refer_boxes", []), dtype=torch.float64).reshape(-1, 4)
    kept = scores > threshold
    if not kept.any() and not len(refer):
        out["fallback"] = ratio(order(torch.topk(scores, 2).values), noise)
        return out
    out["score_order"] = ratio(order(scores[kept]), noise)
    ious = [spec.iou_matrix(*[spec.corners(torch.cat([b[kept], refer]))] * 2) for b in (boxes, boxes32)]
    noise = (ious[0] - ious[1]).abs().max()
    out["iou_vs_threshold"] = ratio((ious[0] - config["nms_thres"]).abs().min(), noise)
    if len(refer):
        best = torch.topk(spec.iou_matrix(spec.corners(refer), spec.corners(exact[case["id"] + "/sel.boxes"])), 2).values
        out["match"] = ratio((best[:, 0] - best[:, 1]).min(), noise)
    return out


def cut(shape):
    """Steps that leave at most WHOLE numbers, or None."""
    steps = [1] * len(shape)
    left = lambda: [math.ceil(n / s) for n, s in zip(shape, steps)]
    while math.prod(left()) > WHOLE:
        axis = int(np.argmax(left()))
        steps[axis] = {1: 2, 2: 3, 3: 5, 5: 7, 7: 11, 11: 13}[steps[axis]]
    return [[0, n, s] for n, s in zip(shape, steps)] if max(steps) > 1 else None


def cases(like, tokens):
    """The prompts of another folder; `stop` ends at a token that its answer would have anyway."""
    book = json.loads((HERE / like / "cases.json").read_text())
    book["cases"] = [c for c in book["cases"] if c["id"] in CASES]
    for case in book["cases"]:
        case.pop("expect", None), case.pop("margins", None)
        case["max_new_tokens"] = 20
        if case["id"] == "stop":
            case.pop("eos_token_id")
            if tokens:
                said = tokens["stop"]["tokens"]
                first = [t for i, t in enumerate(said) if t not in said[:i]]
                case["eos_token_id"] = [first[len(first) // 2]]
    return book


def make(spec, name):
    plan, folder = FOLDERS[name], HERE / name
    config = plan["config"]
    tensors = weights(config, plan["seed"])
    pictures = {key: photo(size, 10 * plan["seed"] + i) for i, (key, size) in enumerate(plan["photos"].items())}
    eos = config["llm_cfg"]["eos_token_id"]
    eos = eos if isinstance(eos, list) else [eos]
    tokens = None
    for _ in range(2):
        book = cases(plan["like"], tokens)
        book["eos_token_id"] = eos
        exact, answers = run(spec, config, tensors, pictures, book, torch.float64)
        tokens = answers
    rough, answers32 = run(spec, config, tensors, pictures, book, torch.float32)

    tokenizer = Tokenizer.from_file(str(HERE / plan["like"] / "tokenizer.json"))
    margins, worst = {}, math.inf
    for key in pictures:
        if key + "/det.topk" in exact:
            scores, scores32 = exact[key + "/det.enc_class"], rough[key + "/det.enc_class"].double()
            best = torch.topk(scores, len(exact[key + "/det.topk"]) + 1).values
            margins["topk_" + key] = ratio(order(best), (scores - scores32).abs().max())
    for case in book["cases"]:
        a, b = answers[case["id"]], answers32[case["id"]]
        assert all(a[k] == b[k] for k in ("tokens", "expanded_ids", "match", "region_index")), "%s flips" % case["id"]
        noise, gap = (a["logits"] - b["logits"]).abs().max(), min(a["gaps"])
        said = selection_margins(spec, config, case, exact, rough) | dict(greedy=ratio(gap, noise))
        said["worst_ratio"] = min(said.values())
        worst = min(worst, said["worst_ratio"])
        stop = a["tokens"][-1] in case.get("eos_token_id", eos)
        text = tokenizer.decode(a["tokens"][:-1] if stop else a["tokens"], skip_special_tokens=False)
        keys = ("region_index", "num_regions", "match", "expanded_ids", "tokens")
        case["expect"] = {k: a[k] for k in keys} | dict(text=text)
        case["margins"] = said
    worst = min([worst, *margins.values()])
    print("%s, seed %d: least margin %.0f; %s" % (name, plan["seed"], worst, {
        c["id"]: (c["expect"]["num_regions"], len(c["expect"]["tokens"])) for c in book["cases"]}))
    if worst < RATIO:
        sys.exit("%s: a decision lies within %.0f times the error: take another seed" % (name, worst))

    entries, stored = {}, {}
    for key, t in exact.items():
        if not t.numel():
            continue
        entry = dict(shape=list(t.shape))
        if t.is_floating_point():
            entry["noise"] = float("%.4g" % (t - rough[key].double()).abs().max())
            entry["max_abs"] = float("%.6g" % t.abs().max())
            t = t.float()
        else:
            entry["exact"] = True
        steps = cut(entry["shape"])
        if steps:
            entry["slice"] = steps
            t = t[tuple(slice(*s) for s in steps)]
        entries[key], stored[key] = entry, t.contiguous().clone()
    folder.mkdir(exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_cases.json"):
        (folder / file).write_bytes((HERE / plan["like"] / file).read_bytes())
    for key, picture in pictures.items():
        picture.save(folder / book["images"][key], optimize=True)
    book = dict(about=plan["about"], images=book["images"], special=book["special"], eos_token_id=eos,
                photo_margins=margins, cases=book["cases"])
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "cases.json").write_text(json.dumps(book))
    save_file(tensors, folder / "model.safetensors")
    save_file(stored, folder / "expected.safetensors")
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.name != "manifest.json"}
    rule = "max|candidate-expected| <= max(20*noise, 1e-5*max_abs); x10 on a GPU; exact = must be equal"
    (folder / "manifest.json").write_text(json.dumps(dict(tensors=entries, files=hashes, rule=rule, about=plan["about"])))


def main(reference, *names):
    spec = importlib.util.spec_from_file_location("reference", reference)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.set_num_threads(1)
    for name in names or FOLDERS:
        make(module, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
