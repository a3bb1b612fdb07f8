#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Writes model/*.tsv, model/*.config.json, model/totals.tsv: the tensors of Hugging Face's classes.

The models are built by `transformers` on PyTorch's meta device, so no weights are needed or held.
The figures in MODELS are those of the published config.json files, typed here independently of
src/model/model_catalog.cpp.

Usage: pip install torch transformers && python generate_model_listings.py

totals.tsv : name, tensors, parameters; a tied head counts once.
NAME.tsv : name, role, shape ("576x7168"), in the order of named_parameters().
NAME.config.json : the configuration as `transformers` writes it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

OUT = Path(__file__).resolve().parent / "model"

# name: (class, hidden, intermediate, layers, heads, kv heads, head dim, vocabulary, tied)
MODELS = {
    "llama-3.2-1b": (LlamaConfig, 2048, 8192, 16, 32, 8, 64, 128256, True),
    "llama-3.1-8b": (LlamaConfig, 4096, 14336, 32, 32, 8, None, 128256, False),
    "llama-3.1-70b": (LlamaConfig, 8192, 28672, 80, 64, 8, None, 128256, False),
    "qwen2.5-0.5b": (Qwen2Config, 896, 4864, 24, 14, 2, None, 151936, True),
    "qwen2.5-7b": (Qwen2Config, 3584, 18944, 28, 28, 4, None, 152064, False),
    "qwen3-0.6b": (Qwen3Config, 1024, 3072, 28, 16, 8, 128, 151936, True),
    "qwen3-1.7b": (Qwen3Config, 2048, 6144, 28, 16, 8, 128, 151936, True),
    "qwen3-4b": (Qwen3Config, 2560, 9728, 36, 32, 8, 128, 151936, True),
    "qwen3-8b": (Qwen3Config, 4096, 12288, 36, 32, 8, 128, 151936, False),
    "qwen3-32b": (Qwen3Config, 5120, 25600, 64, 64, 8, 128, 151936, False),
    "tiny-llama": (LlamaConfig, 512, 1024, 2, 8, 8, 64, 1024, False),
    "tiny-qwen3": (Qwen3Config, 512, 1024, 2, 8, 4, 128, 1024, True),
    "smollm2-135m": (LlamaConfig, 576, 1536, 30, 9, 3, None, 49152, True),
}
# The longer listings repeat the same layer more often; their totals are kept all the same.
LISTED = (
    "llama-3.2-1b",
    "llama-3.1-8b",
    "qwen2.5-0.5b",
    "qwen2.5-7b",
    "qwen3-0.6b",
    "qwen3-8b",
    "tiny-llama",
    "tiny-qwen3",
    "smollm2-135m",
)


def build(name: str) -> torch.nn.Module:
    """The model on the meta device."""
    cls, hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary, tied = MODELS[name]
    figures = {
        "architectures": [cls.__name__.replace("Config", "ForCausalLM")],
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "dtype": "bfloat16",
    }
    if head_dim is not None:
        figures["head_dim"] = head_dim
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(cls(**figures))


def role(model: torch.nn.Module, name: str) -> str:
    """The role by the class of the module that owns the parameter; its name among Linears."""
    module_name, _, parameter = name.rpartition(".")
    module = model.get_submodule(module_name)
    if parameter == "bias":
        return "bias"
    if isinstance(module, torch.nn.Embedding):
        return "embedding"
    if module is model.get_output_embeddings():
        return "head"
    if isinstance(module, torch.nn.Linear):
        return module_name.rpartition(".")[2]
    if "Norm" in type(module).__name__:
        return "norm"
    raise SystemExit(f"{name}: no role for a parameter of {type(module).__name__}")


def main() -> None:
    OUT.mkdir(exist_ok=True)
    origin = f"# transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}\n"
    totals = [origin]
    for name in MODELS:
        model = build(name)
        parameters = list(model.named_parameters())  # a tied head is the embedding and comes once
        elements = sum(p.numel() for _, p in parameters)
        totals.append(f"{name}\t{len(parameters)}\t{elements}\n")
        if name not in LISTED:
            continue
        lines = [origin]
        for parameter_name, parameter in parameters:
            shape = "x".join(str(extent) for extent in parameter.shape)
            lines.append(f"{parameter_name}\t{role(model, parameter_name)}\t{shape}\n")
        (OUT / f"{name}.tsv").write_text("".join(lines))
        (OUT / f"{name}.config.json").write_text(model.config.to_json_string(use_diff=True))
    (OUT / "totals.tsv").write_text("".join(totals))


if __name__ == "__main__":
    main()
