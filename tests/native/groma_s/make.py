"""make.py <reference.py>

What the executable specification says of a photo with the weights of models/groma-s: run it anew when they change. Needs the training
package (for the bases) and Pillow. The photo is scikit-image's "coffee" (CC0, Rachel Michetti), half as large.
"""

import hashlib
import importlib.util
import json
import pathlib
import re
import sys

import numpy as np
import torch
from groma_training import bases
from PIL import Image
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parents[2] / "models" / "groma-s"
QUESTIONS = {
    "describe": "[grounding]Please briefly summarize the content of this image.",
    "detect": "Locate all <p>cup</p> in this image.",
    "locate": "Locate <p>the spoon</p> in the image.",
}
MAX_NEW = 24


def main():
    spec = importlib.util.spec_from_file_location("reference", sys.argv[1])
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    config = json.loads((MODEL / "config.json").read_text())
    weights = MODEL / "model.safetensors"
    own = {name: value.float() for name, value in load_file(weights).items()}
    base = {"perceiver.vis_encoder." + name: value for name, value in bases.encoder_tensors().items()}
    groma = reference.Groma(config, base | bases.decoder_tensors() | own, torch.float32)
    tokenizer = bases.tokenizer()
    special = reference.special_ids(tokenizer.token_to_id)
    photo = Image.open(HERE / "coffee.png").convert("RGB")
    cases = []
    with torch.no_grad():
        groma.look(np.array(photo))
        boxes, _ = groma.select(groma.boxes, groma.scores, torch.zeros(0, 4))
        for task, text in QUESTIONS.items():
            ids = tokenizer.encode(reference.build_prompt(config["chat_template"], [text])).ids
            said = groma.answer(ids, special, eos=(config["llm_cfg"]["eos_token_id"],), max_new=MAX_NEW)
            cases.append({"task": task, "user": text, "tokens": [int(t) for t in said["tokens"]]})
            print(text, "->", tokenizer.decode(cases[-1]["tokens"], skip_special_tokens=False))
    book = {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "max_new_tokens": MAX_NEW,
        "boxes": [[round(float(v), 6) for v in box] for box in boxes],
        "cases": cases,
    }
    text = json.dumps(book, indent=1)
    text = re.sub(r"\n {2,}([-\d\]])", lambda m: m[1] if m[1] == "]" else " " + m[1], text)  # a list of numbers a line
    (HERE / "expected.json").write_text(text + "\n")


main()
