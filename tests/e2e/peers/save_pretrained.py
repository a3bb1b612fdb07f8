# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a tiny checkpoint directory by `save_pretrained` of the transformers library.

    python save_pretrained.py KIND FOLDER

Runs under a Python that has PyTorch and transformers. The values are PyTorch's own initialisation, in
BF16; the files are cut into shards, so that there is an index. Prints the library's version.
"""

import sys

import torch
import transformers

COMMON = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 640,
          "max_position_embeddings": 128}
EXPERTS = {"moe_intermediate_size": 256, "num_experts_per_tok": 2}
MLA = {"q_lora_rank": 128, "kv_lora_rank": 128, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
       "v_head_dim": 128, "n_group": 1, "topk_group": 1, "n_routed_experts": 4,
       "n_shared_experts": 1, "first_k_dense_replace": 1}
KINDS = {
    "llama": ("Llama", COMMON | {"head_dim": 64, "tie_word_embeddings": False}),
    "llama-tied": ("Llama", COMMON | {"head_dim": 64, "tie_word_embeddings": True}),
    "mistral": ("Mistral", COMMON | {"head_dim": 64, "tie_word_embeddings": False}),
    "qwen2": ("Qwen2", COMMON | {"tie_word_embeddings": False}),
    "qwen3": ("Qwen3", COMMON | {"head_dim": 128, "tie_word_embeddings": True}),
    "qwen3-moe": ("Qwen3Moe", COMMON | EXPERTS | {"head_dim": 64, "num_experts": 4,
                                                  "tie_word_embeddings": False}),
    "deepseek-v3": ("DeepseekV3", COMMON | EXPERTS | MLA | {"num_key_value_heads": 4,
                                                            "tie_word_embeddings": False}),
}


def main(kind, folder, shard="1MB"):
    family, keys = KINDS[kind]
    torch.manual_seed(7)
    config = getattr(transformers, family + "Config")(**keys)
    model = getattr(transformers, family + "ForCausalLM")(config).to(torch.bfloat16)
    # Biases, norms and the routers' corrections begin as constants; a misplaced one must show.
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.add_(0.01 * torch.randn_like(tensor))
    model.save_pretrained(folder, max_shard_size=shard)
    print(transformers.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
