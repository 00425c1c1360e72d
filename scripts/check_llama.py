"""Lets llama.cpp answer with a pack's decoder, and writes its tokens down as a case for `groma verify`.

    python scripts/check_llama.py CHECKPOINT PACK      # pip install llama-cpp-python
    groma verify CHECKPOINT --device cpu

CHECKPOINT is a folder of official form without added tokens (`num_new_token` 0) and with Vicuna's template, PACK what
`groma convert CHECKPOINT -o PACK --quant f32` made of it. llama.cpp tokenises the prompts itself, with the tokenizer that
`decoder.gguf` describes; `groma verify` compares those ids too.
"""

import json
import pathlib
import sys

from llama_cpp import Llama

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
QUESTIONS = ["Who is near the red car?", "a dog", "the man in red, left of two chairs", "12 boats!"]
TOKENS = 40


def answer(llama, ids, stop):
    """The greedy tokens after `ids`."""
    llama.reset()
    llama.eval(ids)
    out = []
    while len(out) < TOKENS:
        logits = llama._ctx.get_logits_ith(-1)
        out.append(max(range(llama.n_vocab()), key=lambda i: logits[i]))
        if out[-1] in stop:
            break
        llama.eval(out[-1:])
    return out


def main(checkpoint, pack):
    checkpoint, pack = pathlib.Path(checkpoint), pathlib.Path(pack)
    config = json.loads((checkpoint / "config.json").read_text())
    assert config.get("num_new_token", 0) == 0, "llama.cpp knows no added tokens"
    joined = pack / "decoder.gguf.joined"
    joined.write_bytes(b"".join(p.read_bytes() for p in sorted(pack.glob("decoder.gguf.[0-9]*"))))
    llama = Llama(str(joined), n_ctx=512, n_threads=1, verbose=False)
    joined.unlink()
    stop = [config["llm_cfg"].get("eos_token_id", 2)]
    cases = []
    for i, question in enumerate(QUESTIONS):
        ids = llama.tokenize(f"{SYSTEM} USER: {question} ASSISTANT:".encode(), add_bos=True, special=False)
        case = {"id": f"l{i}", "task": "text only", "turns": [question], "input_ids": ids, "max_new_tokens": TOKENS}
        cases.append(case | {"eos_token_id": stop, "expect": {"tokens": answer(llama, ids, stop)}})
    book = {"about": "llama.cpp's greedy tokens", "images": {}, "cases": cases}
    (checkpoint / "cases.json").write_text(json.dumps(book))
    (checkpoint / "manifest.json").write_text('{"tensors": {}}')
    (checkpoint / "expected.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")


if __name__ == "__main__":
    main(*sys.argv[1:])
