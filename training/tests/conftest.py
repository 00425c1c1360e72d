"""A Groma small enough to train in seconds, with a tokenizer of its own."""

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from groma_training.config import GromaConfig
from groma_training.tokens import ADDED_TOKENS

# Toys are too small for several threads to help, and on a busy machine threads wait for one another.
torch.set_num_threads(1)

WORDS = "<unk0> <|im_start|> <|im_end|> dog cat car tree ball red blue".split()


@pytest.fixture(scope="session")
def toy_tokenizer():
    tok = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk0>"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.add_special_tokens([AddedToken(w, special=True, normalized=False) for w in ("<|im_start|>", "<|im_end|>")])
    tok.add_special_tokens([AddedToken(w, special=True, normalized=False) for w in ADDED_TOKENS])
    return tok


@pytest.fixture
def toy_config():
    torch.manual_seed(0)
    return GromaConfig.from_dict({
        "num_new_token": len(ADDED_TOKENS), "image_size": 64, "image_token_merge": 2, "chat_template": "chatml",
        "perceiver_cfg": {
            "vis_encoder_cfg": {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64,
                                "patch_size": 8},
            "ddetr_cfg": {"d_model": 32, "num_feature_levels": 3, "two_stage": True, "with_box_refine": True,
                          "num_queries": 20, "two_stage_num_proposals": 20, "encoder_layers": 1, "decoder_layers": 2,
                          "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_attention_heads": 4,
                          "decoder_attention_heads": 4}},
        "llm_cfg": {"vocab_size": len(WORDS), "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
                    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True, "eos_token_id": 2},
        "region_encoder_cfg": {"embed_dims": 16, "hidden_dims": 32, "pos_dims": 16, "num_groups": 4, "num_fuse": 1,
                               "roi_size": 3, "level_scales": [1, 1], "featmap_strides": [56.0, 56.0], "box_format": "xyxy"}})
