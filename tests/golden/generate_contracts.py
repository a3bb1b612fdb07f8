#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Writes contracts/<engine>.<model>.tp<N>.txt: what vLLM wants on the wire and where each rank puts it.

The listings follow the loader rules of vLLM 017e9f4 as its source states them (parameter.py, linear.py,
vocab_parallel_embedding.py, fp8.py, compressed_tensors_w8a8_fp8.py, modelopt.py): each rank narrows the loaded tensor by
itself, and block scales divide by the TP size first and round up afterwards. Nothing here is taken from the C++ code,
which is tested against these files.

Lines:
  wire NAME [SHAPE] DTYPE,DTYPE...           in the order of the checkpoint; the first dtype is the one to send
  dest NAME [SHAPE] DTYPE                    of one rank
  load RANK NAME[R0:R1, C0:C1] -> DEST[ROW]  matrix view; DEST row of the first row

Run: python3 tests/golden/generate_contracts.py
"""

import pathlib

MODELS = {
    # hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary, tied, qkv_bias, qk_norm
    "tiny-llama": (512, 1024, 2, 8, 8, 64, 1024, False, False, False),
    "qwen3-0.6b": (1024, 3072, 2, 16, 8, 128, 151936, True, False, True),  # the first two layers
    "qwen2.5-0.5b": (896, 4864, 1, 14, 2, 64, 151936, True, True, False),  # the first layer
    "padded-llama": (256, 512, 1, 4, 2, 64, 1000, False, False, False),  # a vocabulary that is no multiple of 64
}

# listing name -> (weight dtype, scale suffix, kind of scale)
ENGINES = {
    "vllm-bf16": ("BF16", None, None),
    "vllm-fp8": ("F8_E4M3", "weight_scale_inv", "block"),
    "vllm-fp8-tensorwise": ("F8_E4M3", "weight_scale", "tensor"),
    "vllm-compressed-tensors": ("F8_E4M3", "weight_scale", "channel2d"),
    "vllm-compressed-tensors-blockwise": ("F8_E4M3", "weight_scale", "block"),
    "vllm-modelopt": ("F8_E4M3", "weight_scale", "channel1d"),
    "vllm-modelopt-pb-wo": ("F8_E4M3", "weight_scale", "block4d"),
}

LISTINGS = (
    [(e, m, tp) for e in ("vllm-bf16", "vllm-fp8", "vllm-fp8-tensorwise", "vllm-compressed-tensors",
                          "vllm-modelopt") for m in ("tiny-llama", "qwen3-0.6b") for tp in (1, 2, 4)]
    + [("vllm-compressed-tensors-blockwise", "tiny-llama", 2), ("vllm-modelopt-pb-wo", "tiny-llama", 2)]
    + [("vllm-compressed-tensors", "qwen3-0.6b", 16), ("vllm-modelopt", "qwen3-0.6b", 16)]
    + [("vllm-compressed-tensors", "qwen2.5-0.5b", tp) for tp in (1, 2)]
    + [("vllm-bf16", "padded-llama", 2), ("vllm-compressed-tensors", "padded-llama", 4)]
)

WIRE_DTYPES = {
    "scale": "F32,BF16,F16",
    "model": "BF16,F32",  # norms, biases, vocabulary tensors
    "F8_E4M3": "F8_E4M3",
    "BF16": "BF16",
}


def cd(a, b):
    return -(-a // b)


class Listing:
    def __init__(self, engine, model, tp):
        self.weight_dtype, self.suffix, self.kind = ENGINES[engine]
        (self.hidden, self.ffn, self.layers, self.heads, self.kv, self.hd, self.vocab, self.tied, self.bias,
         self.norms) = MODELS[model]
        self.tp = tp
        self.wire, self.dest, self.loads = [], {}, []

    def load(self, name, rows, cols, dest, dest_row=0):
        """rows(rank) and cols(rank) give half-open ranges."""
        for rank in range(self.tp):
            (r0, r1), (c0, c1) = rows(rank), cols(rank)
            if r1 > r0:
                self.loads.append(f"load {rank} {name}[{r0}:{r1}, {c0}:{c1}] -> {dest}[{dest_row}]")

    def tensor(self, name, shape, dtype):
        self.wire.append(f"wire {name} {list(shape)} {WIRE_DTYPES[dtype]}")

    def replicated(self, name, shape, dtype="model", dest_dtype="BF16"):
        self.tensor(name, shape, dtype)
        self.dest.setdefault(name, (shape, dest_dtype))
        cols = shape[1] if len(shape) > 1 else 1
        self.load(name, lambda r: (0, shape[0]), lambda r: (0, cols), name)

    def vocabulary(self, name):
        padded = cd(self.vocab, 64) * 64
        per = padded // self.tp
        self.tensor(name, (self.vocab, self.hidden), "model")
        self.dest[name] = ((per, self.hidden), "BF16")
        self.load(name, lambda r: (min(r * per, self.vocab), min((r + 1) * per, self.vocab)),
                  lambda r: (0, self.hidden), name)

    def scale_shape(self, rows, cols):
        return {"block": (cd(rows, 128), cd(cols, 128)), "block4d": (cd(rows, 128), 1, cd(cols, 128), 1),
                "channel2d": (rows, 1), "channel1d": (rows,), "tensor": (1,)}[self.kind]

    def column(self, prefix, fused, parts, bias=False):
        """parts: (name, global rows, local rows, replicas)."""
        total = sum(p[2] for p in parts)
        fused = prefix + fused
        self.dest[fused + ".weight"] = ((total, self.hidden), self.weight_dtype)
        if self.kind:
            shape = (len(parts),) if self.kind == "tensor" else self.scale_shape(total, self.hidden)
            self.dest[f"{fused}.{self.suffix}"] = (shape, "F32")
        if bias:
            self.dest[fused + ".bias"] = ((total,), "BF16")
        offset = 0
        for shard, (part, rows, local, replicas) in enumerate(parts):
            name = prefix + part

            def narrow(size):
                return lambda r: (r // replicas * size, r // replicas * size + size)

            self.tensor(name + ".weight", (rows, self.hidden), self.weight_dtype)
            self.load(name + ".weight", narrow(local), lambda r: (0, self.hidden), fused + ".weight", offset)
            if self.kind:
                scale = f"{name}.{self.suffix}"
                target = f"{fused}.{self.suffix}"
                self.tensor(scale, self.scale_shape(rows, self.hidden), "scale")
                if self.kind in ("block", "block4d"):
                    self.load(scale, narrow(cd(local, 128)), lambda r: (0, cd(self.hidden, 128)), target,
                              cd(offset, 128))
                elif self.kind == "tensor":
                    self.load(scale, lambda r: (0, 1), lambda r: (0, 1), target, shard)
                else:
                    self.load(scale, narrow(local), lambda r: (0, 1), target, offset)
            if bias:
                self.tensor(name + ".bias", (rows,), "model")
                self.load(name + ".bias", narrow(local), lambda r: (0, 1), fused + ".bias", offset)
            offset += local

    def row(self, name, rows, cols):
        local = cols // self.tp

        def narrow(size):
            return lambda r: (r * size, r * size + size)

        self.tensor(name + ".weight", (rows, cols), self.weight_dtype)
        self.dest[name + ".weight"] = ((rows, local), self.weight_dtype)
        self.load(name + ".weight", lambda r: (0, rows), narrow(local), name + ".weight")
        if not self.kind:
            return
        scale = f"{name}.{self.suffix}"
        self.tensor(scale, self.scale_shape(rows, cols), "scale")
        self.dest[scale] = (self.scale_shape(rows, local), "F32")
        if self.kind in ("block", "block4d"):
            self.load(scale, lambda r: (0, cd(rows, 128)), narrow(cd(local, 128)), scale)
        else:  # the channel class has no rule for rows: every rank keeps all of it
            self.load(scale, lambda r: (0, 1 if self.kind == "tensor" else rows), lambda r: (0, 1), scale)

    def lines(self):
        kv_local, replicas = (1, self.tp // self.kv) if self.tp >= self.kv else (self.kv // self.tp, 1)
        self.vocabulary("model.embed_tokens.weight")
        for layer in range(self.layers):
            p = f"model.layers.{layer}."
            kv = (self.kv * self.hd, kv_local * self.hd, replicas)
            self.column(p + "self_attn.", "qkv_proj",
                        [("q_proj", self.heads * self.hd, self.heads // self.tp * self.hd, 1),
                         ("k_proj", *kv), ("v_proj", *kv)], self.bias)
            self.row(p + "self_attn.o_proj", self.hidden, self.heads * self.hd)
            if self.norms:
                self.replicated(p + "self_attn.q_norm.weight", (self.hd,))
                self.replicated(p + "self_attn.k_norm.weight", (self.hd,))
            self.column(p + "mlp.", "gate_up_proj",
                        [(n, self.ffn, self.ffn // self.tp, 1) for n in ("gate_proj", "up_proj")])
            self.row(p + "mlp.down_proj", self.hidden, self.ffn)
            self.replicated(p + "input_layernorm.weight", (self.hidden,))
            self.replicated(p + "post_attention_layernorm.weight", (self.hidden,))
        self.replicated("model.norm.weight", (self.hidden,))
        if not self.tied:
            self.vocabulary("lm_head.weight")
        dest = sorted(f"dest {n} {list(shape)} {dtype}" for n, (shape, dtype) in self.dest.items())
        return self.wire + dest + sorted(self.loads)


def main():
    folder = pathlib.Path(__file__).parent / "contracts"
    folder.mkdir(exist_ok=True)
    for engine, model, tp in LISTINGS:
        text = "\n".join(Listing(engine, model, tp).lines()) + "\n"
        (folder / f"{engine}.{model}.tp{tp}.txt").write_text(text)


if __name__ == "__main__":
    main()
