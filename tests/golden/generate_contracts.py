#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Writes contracts/<engine>.<model>.tp<N>.txt: what an engine wants on the wire and where each rank puts it.

The listings follow the loader rules of vLLM 017e9f4 as its source states them (parameter.py, linear.py,
vocab_parallel_embedding.py, fp8.py, compressed_tensors_w8a8_fp8.py, modelopt.py, routed_experts.py), and those of
SGLang 8905cbd (the files of the same names, fused_moe_triton/layer.py), transformers 33d1bc04 (finegrained_fp8.py) and
TensorRT-LLM (linear.py): each rank narrows the loaded tensor by itself; block scales divide by the TP size first and
round up afterwards, but for SGLang's merged layers, which round up first. Nothing here is taken from the C++ code,
which is tested against these files.

Lines:
  wire NAME [SHAPE] DTYPE,DTYPE...           in the order of the checkpoint; the first dtype is the one to send
  dest NAME [SHAPE] DTYPE                    of one rank
  load RANK NAME[R0:R1, C0:C1] -> DEST[ROW]  matrix view; DEST row of the first row
  load RANK NAME[R0:R1, C0:C1] -> DEST[ROW, COL]  the same, where the column is not 0
A 3-D DEST is a stack of matrices, one below the other. "tp4-ep" in a file's name: the TP ranks keep whole experts.

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

# Mixtures of experts: hidden, layers, heads, kv_heads, head_dim, vocabulary, experts, rows of an expert
MOE_MODELS = {"tiny-moe": (256, 2, 8, 4, 128, 512, 8, 512)}

# Latent attention with experts: hidden, dense ffn, layers, dense layers, heads, vocabulary, q_lora, kv_lora, nope,
# rope, v, experts, rows of an expert, rows of the shared expert, MTP layers
MLA_MODELS = {"tiny-mla": (256, 512, 2, 1, 8, 512, 256, 128, 128, 64, 128, 8, 512, 512, 1)}

# listing name -> (weight dtype, scale suffix, kind of scale)
ENGINES = {
    "vllm-bf16": ("BF16", None, None),
    "vllm-fp8": ("F8_E4M3", "weight_scale_inv", "block"),
    "vllm-fp8-tensorwise": ("F8_E4M3", "weight_scale", "tensor"),
    "vllm-compressed-tensors": ("F8_E4M3", "weight_scale", "channel2d"),
    "vllm-compressed-tensors-blockwise": ("F8_E4M3", "weight_scale", "block"),
    "vllm-modelopt": ("F8_E4M3", "weight_scale", "channel1d"),
    "vllm-modelopt-pb-wo": ("F8_E4M3", "weight_scale", "block4d"),
    "sglang-bf16": ("BF16", None, None),
    "sglang-fp8": ("F8_E4M3", "weight_scale_inv", "block"),
    "sglang-fp8-tensorwise": ("F8_E4M3", "weight_scale", "tensor"),
    "sglang-compressed-tensors": ("F8_E4M3", "weight_scale", "channel2d"),
    "sglang-compressed-tensors-blockwise": ("F8_E4M3", "weight_scale", "block"),
    "transformers-fp8": ("F8_E4M3", "weight_scale_inv", "block"),
    "transformers-fp8-tensorwise": ("F8_E4M3", "weight_scale_inv", "tensor"),
    "trtllm-fp8": ("F8_E4M3", "weight_scale", "channel1d"),
    "strict": ("F8_E4M3", "weight_scale_inv", "block"),
    "strict-channelwise": ("F8_E4M3", "weight_scale", "channel2d"),
}


# "vllm-fp8-64": the same engine with blocks of 64 x 64.
BLOCK_64 = ("vllm-fp8", "sglang-fp8")
ENGINES |= {f"{engine}-64": ENGINES[engine] for engine in BLOCK_64}


def block_of(engine):
    return 64 if engine.endswith("-64") else 128


class Layout:
    """How an engine calls what it fuses, and what it converts a scale from."""

    def __init__(self, engine):
        engine = engine.removesuffix("-64")
        self.fuses = not engine.startswith("transformers")
        self.sglang = engine.startswith("sglang")
        self.latent = "fused_qkv_a_proj_with_mqa" if self.sglang else "fused_qkv_a_proj"
        self.stacks = ("routed_experts.w13_weight", "routed_experts.w2_weight")
        if self.sglang:
            self.stacks = ("w13_weight", "w2_weight")
        self.padding = 64
        if not self.fuses:
            self.stacks, self.padding = ("gate_up_proj", "down_proj"), 1
        # Blocks of the latent projection of transformers cannot be read back: it stays in BF16.
        self.raw = ("kv_a_proj_with_mqa",) if engine == "transformers-fp8" else ()
        self.engine = engine

    def scale_dtypes(self, rule, kind):
        """rule: column, merged, qkv, latent, row, experts."""
        usual = "F32,BF16,F16"
        if self.engine.startswith("strict"):
            return "F32"
        if not self.fuses:
            return usual + ",F8_E8M0,U8"  # bytes are read as E8M0
        if self.engine == "vllm-fp8":
            return usual + ",F8_E8M0"  # copied by value
        # Only layers that are not fused compare dtypes; a channel scale of a row layer is not cut.
        copied = rule in ("merged", "qkv", "row") and not (rule == "row" and kind == "channel2d")
        return usual + (",F8_E8M0" if self.sglang and copied and kind != "tensor" else "")

LISTINGS = (
    [(e, m, tp) for e in ("vllm-bf16", "vllm-fp8", "vllm-fp8-tensorwise", "vllm-compressed-tensors",
                          "vllm-modelopt") for m in ("tiny-llama", "qwen3-0.6b") for tp in (1, 2, 4)]
    + [("vllm-compressed-tensors-blockwise", "tiny-llama", 2), ("vllm-modelopt-pb-wo", "tiny-llama", 2)]
    + [("vllm-compressed-tensors", "qwen3-0.6b", 16), ("vllm-modelopt", "qwen3-0.6b", 16)]
    + [("vllm-compressed-tensors", "qwen2.5-0.5b", tp) for tp in (1, 2)]
    + [("vllm-bf16", "padded-llama", 2), ("vllm-compressed-tensors", "padded-llama", 4)]
    + [(e, "qwen3-0.6b", tp) for e in ("sglang-bf16", "sglang-fp8", "sglang-fp8-tensorwise", "strict",
                                       "sglang-compressed-tensors", "trtllm-fp8") for tp in (1, 2, 4)]
    + [(e, "tiny-llama", tp) for e in ("sglang-bf16", "sglang-fp8-tensorwise", "sglang-compressed-tensors",
                                       "trtllm-fp8") for tp in (2, 4)]
    + [(e, "tiny-llama", 2) for e in ("sglang-compressed-tensors-blockwise", "strict-channelwise")]
    + [(e, m, 1) for e in ("transformers-fp8", "transformers-fp8-tensorwise") for m in ("tiny-llama", "qwen3-0.6b")]
    + [("transformers-fp8", "qwen2.5-0.5b", 1), ("sglang-fp8", "qwen2.5-0.5b", 1),
       ("sglang-compressed-tensors", "padded-llama", 4), ("sglang-compressed-tensors", "qwen3-0.6b", 16)]
)

EXPERT_LISTINGS = (
    [("vllm-fp8", m, tp, 1) for m in ("tiny-moe", "tiny-mla") for tp in (1, 2, 4)]
    + [("vllm-fp8", m, 2, 2) for m in ("tiny-moe", "tiny-mla")]
    + [(e, m, 2, 1) for e in ("vllm-compressed-tensors", "vllm-compressed-tensors-blockwise", "vllm-bf16",
                              "vllm-fp8-tensorwise") for m in ("tiny-moe", "tiny-mla")]
    + [("vllm-compressed-tensors", "tiny-moe", 4, 4), ("vllm-fp8-tensorwise", "tiny-moe", 2, 2)]
    + [("sglang-fp8", m, tp, 1) for m in ("tiny-moe", "tiny-mla") for tp in (1, 2, 4)]
    + [(e, m, 2, 1) for e in ("sglang-bf16", "sglang-fp8-tensorwise", "sglang-compressed-tensors",
                              "sglang-compressed-tensors-blockwise") for m in ("tiny-moe", "tiny-mla")]
    + [(e, m, 1, 1) for e in ("transformers-fp8", "transformers-fp8-tensorwise") for m in ("tiny-moe", "tiny-mla")]
    + [("sglang-fp8", "tiny-moe", 2, 2), ("strict", "tiny-moe", 4, 1)]
    + [(f"{e}-64", m, 2, 1) for e in BLOCK_64 for m in ("tiny-moe", "tiny-mla")]
)

WIRE_DTYPES = {
    "model": "BF16,F32,F16",  # norms, biases, vocabulary tensors
    "F8_E4M3": "F8_E4M3",
    "BF16": "BF16,F32,F16",
}

EVERY_RANK = None


def cd(a, b):
    return -(-a // b)


class Listing:
    def __init__(self, engine, model, tp):
        self.weight_dtype, self.suffix, self.kind = ENGINES[engine]
        self.layout, self.block = Layout(engine), block_of(engine)
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

    def put(self, ranks, name, rows, cols, dest, dest_row, dest_col=0):
        """The same for a given set of ranks, with a column of the destination."""
        at = f"{dest_row}, {dest_col}" if dest_col else f"{dest_row}"
        for rank in range(self.tp):
            if ranks is EVERY_RANK or rank in ranks:
                (r0, r1), (c0, c1) = rows(rank), cols(rank)
                self.loads.append(f"load {rank} {name}[{r0}:{r1}, {c0}:{c1}] -> {dest}[{at}]")

    def tensor(self, name, shape, dtype):
        self.wire.append(f"wire {name} {list(shape)} {WIRE_DTYPES[dtype]}")

    def scale(self, name, shape, rule):
        self.wire.append(f"wire {name} {list(shape)} {self.layout.scale_dtypes(rule, self.kind)}")

    def replicated(self, name, shape, dtype="model", dest_dtype="BF16"):
        self.tensor(name, shape, dtype)
        self.dest.setdefault(name, (shape, dest_dtype))
        cols = shape[1] if len(shape) > 1 else 1
        self.load(name, lambda r: (0, shape[0]), lambda r: (0, cols), name)

    def vocabulary(self, name):
        padded = cd(self.vocab, self.layout.padding) * self.layout.padding
        per = padded // self.tp
        self.tensor(name, (self.vocab, self.hidden), "model")
        self.dest[name] = ((per, self.hidden), "BF16")
        self.load(name, lambda r: (min(r * per, self.vocab), min((r + 1) * per, self.vocab)),
                  lambda r: (0, self.hidden), name)

    def scale_shape(self, rows, cols):
        return {"block": (cd(rows, self.block), cd(cols, self.block)), "block4d": (cd(rows, self.block), 1, cd(cols, self.block), 1),
                "channel2d": (rows, 1), "channel1d": (rows,), "tensor": (1,)}[self.kind]

    def column(self, prefix, fused, parts, bias=False):
        """parts: (name, global rows, local rows, replicas)."""
        if not self.layout.fuses and len(parts) > 1:
            for part in parts:
                self.column(prefix, part[0], [part], bias)
            return
        rule = {"qkv_proj": "qkv", "gate_up_proj": "merged"}.get(fused, "column")
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
                self.scale(scale, self.scale_shape(rows, self.hidden), rule)
                if self.kind in ("block", "block4d"):
                    size, at = cd(local, self.block), cd(offset, self.block)
                    if self.layout.sglang and rule == "merged":
                        size, at = cd(rows, self.block) // self.tp, cd(rows * shard, self.block) // self.tp
                    self.load(scale, narrow(size), lambda r: (0, cd(self.hidden, self.block)), target, at)
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
        self.scale(scale, self.scale_shape(rows, cols), "row")
        self.dest[scale] = (self.scale_shape(rows, local), "F32")
        if self.kind in ("block", "block4d"):
            self.load(scale, lambda r: (0, cd(rows, self.block)), narrow(cd(local, self.block)), scale)
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


class ExpertListing(Listing):
    """Layers with a stack of experts, without a word about attention."""

    def __init__(self, engine, tp, ep):
        self.weight_dtype, self.suffix, self.kind = ENGINES[engine]
        self.layout, self.block = Layout(engine), block_of(engine)
        self.tp, self.ep = tp, ep
        self.wire, self.dest, self.loads = [], {}, []

    def one_column(self, name, rows, cols):
        """An unfused column layer: column() of one part whose input is not the hidden size."""
        hidden, self.hidden = self.hidden, cols
        prefix, leaf = name.rsplit(".", 1)
        self.column(prefix + ".", leaf, [(leaf, rows, rows // self.tp, 1)])
        self.hidden = hidden

    def dense(self, prefix, rows):
        self.column(prefix, "gate_up_proj", [(n, rows, rows // self.tp, 1) for n in ("gate_proj", "up_proj")])
        self.row(prefix + "down_proj", self.hidden, rows)

    def experts(self, prefix, count, rows):
        """FusedMoE: gate, up and down of expert e at index e (or e minus the rank's first expert) of w13 and w2."""
        h = self.hidden
        w13_name, w2_name = (f"{prefix}experts.{name}" for name in self.layout.stacks)
        suffix = self.suffix[len("weight"):] if self.kind else None
        kept = count // self.ep
        cut_by = 1 if self.ep > 1 else self.tp
        local = rows // cut_by
        self.dest[w13_name] = ((kept, 2 * local, h), self.weight_dtype)
        self.dest[w2_name] = ((kept, h, local), self.weight_dtype)
        if self.kind:
            w13, w2 = {
                "block": ((kept, 2 * cd(local, self.block), cd(h, self.block)), (kept, cd(h, self.block), cd(local, self.block))),
                "channel2d": ((kept, 2 * local, 1), (kept, h, 1)),
                "tensor": ((kept, 2), (kept,)),
            }[self.kind]
            self.dest[w13_name + suffix] = (w13, "F32")
            self.dest[w2_name + suffix] = (w2, "F32")

        def share(total):  # floor division, then rank by rank
            per = total // cut_by
            return lambda r: (0, total) if cut_by == 1 else (r * per, r * per + per)

        def all_of(total):
            return lambda r: (0, total)

        for e in range(count):
            ranks = EVERY_RANK if self.ep == 1 else {e // kept}
            i = e % kept
            for part, half in (("gate_proj", 0), ("up_proj", 1)):
                name = f"{prefix}experts.{e}.{part}"
                self.tensor(name + ".weight", (rows, h), self.weight_dtype)
                self.put(ranks, name + ".weight", share(rows), all_of(h), w13_name,
                         (2 * i + half) * local)
                if not self.kind:
                    continue
                scale, target = f"{name}.{self.suffix}", w13_name + suffix
                self.scale(scale, self.scale_shape(rows, h), "experts")
                if self.kind == "block":
                    self.put(ranks, scale, share(cd(rows, self.block)), all_of(cd(h, self.block)), target,
                             (2 * i + half) * cd(local, self.block))
                elif self.kind == "channel2d":
                    self.put(ranks, scale, share(rows), all_of(1), target, (2 * i + half) * local)
                else:
                    self.put(ranks, scale, all_of(1), all_of(1), target, i, half)
            name = f"{prefix}experts.{e}.down_proj"
            self.tensor(name + ".weight", (h, rows), self.weight_dtype)
            self.put(ranks, name + ".weight", all_of(h), share(rows), w2_name, i * h)
            if self.kind:
                scale, target = f"{name}.{self.suffix}", w2_name + suffix
                self.scale(scale, self.scale_shape(h, rows), "experts")
                if self.kind == "block":
                    self.put(ranks, scale, all_of(cd(h, self.block)), share(cd(rows, self.block)), target, i * cd(h, self.block))
                elif self.kind == "channel2d":  # w2 scales are not cut
                    self.put(ranks, scale, all_of(h), all_of(1), target, i * h)
                else:
                    self.put(ranks, scale, all_of(1), all_of(1), target, i)

    def text(self):
        dest = sorted(f"dest {n} {list(shape)} {dtype}" for n, (shape, dtype) in self.dest.items())
        return self.wire + dest + sorted(self.loads)


class MoeListing(ExpertListing):
    def __init__(self, engine, model, tp, ep):
        super().__init__(engine, tp, ep)
        (self.hidden, self.layers, self.heads, self.kv, self.hd, self.vocab, self.count,
         self.rows) = MOE_MODELS[model]

    def lines(self):
        kv_local, replicas = (1, self.tp // self.kv) if self.tp >= self.kv else (self.kv // self.tp, 1)
        kv = (self.kv * self.hd, kv_local * self.hd, replicas)
        self.vocabulary("model.embed_tokens.weight")
        for layer in range(self.layers):
            p = f"model.layers.{layer}."
            self.column(p + "self_attn.", "qkv_proj",
                        [("q_proj", self.heads * self.hd, self.heads // self.tp * self.hd, 1),
                         ("k_proj", *kv), ("v_proj", *kv)])
            self.row(p + "self_attn.o_proj", self.hidden, self.heads * self.hd)
            self.replicated(p + "self_attn.q_norm.weight", (self.hd,))
            self.replicated(p + "self_attn.k_norm.weight", (self.hd,))
            self.experts(p + "mlp.", self.count, self.rows)
            self.replicated(p + "mlp.gate.weight", (self.count, self.hidden))
            self.replicated(p + "input_layernorm.weight", (self.hidden,))
            self.replicated(p + "post_attention_layernorm.weight", (self.hidden,))
        self.replicated("model.norm.weight", (self.hidden,))
        self.vocabulary("lm_head.weight")
        return self.text()


class MlaListing(ExpertListing):
    def __init__(self, engine, model, tp, ep):
        super().__init__(engine, tp, ep)
        (self.hidden, self.ffn, self.layers, self.dense_layers, self.heads, self.vocab, self.q_lora, self.kv_lora,
         self.nope, self.rope, self.v, self.count, self.rows, self.shared, self.mtp) = MLA_MODELS[model]

    def whole(self, name, rows):
        """A projection that every rank keeps whole and that is fused with none."""
        prefix, leaf = name.rsplit(".", 1)
        if leaf in self.layout.raw:
            self.replicated(name + ".weight", (rows, self.hidden), "BF16")
        else:
            self.column(prefix + ".", leaf, [(leaf, rows, rows, 1)])

    def fused_a(self, prefix):
        """fused_qkv_a_proj: both parts whole on every rank, the second may end within a block."""
        h, fused = self.hidden, prefix + self.layout.latent
        kv = self.kv_lora + self.rope
        if not self.layout.fuses:
            self.whole(prefix + "q_a_proj", self.q_lora)
            self.replicated(prefix + "q_a_layernorm.weight", (self.q_lora,))
            self.one_column(prefix + "q_b_proj", self.heads * (self.nope + self.rope), self.q_lora)
            self.whole(prefix + "kv_a_proj_with_mqa", kv)
            self.replicated(prefix + "kv_a_layernorm.weight", (self.kv_lora,))
            return
        self.dest[fused + ".weight"] = ((self.q_lora + kv, h), self.weight_dtype)
        if self.kind:
            shape = (2,) if self.kind == "tensor" else self.scale_shape(self.q_lora + kv, h)
            self.dest[f"{fused}.{self.suffix}"] = (shape, "F32")

        def part(leaf, rows, offset, slot):
            name = prefix + leaf
            self.tensor(name + ".weight", (rows, h), self.weight_dtype)
            self.load(name + ".weight", lambda r: (0, rows), lambda r: (0, h), fused + ".weight", offset)
            if not self.kind:
                return
            scale = f"{name}.{self.suffix}"
            shape = self.scale_shape(rows, h)
            at = {"block": cd(offset, self.block), "channel2d": offset, "tensor": slot}[self.kind]
            cols = shape[1] if len(shape) > 1 else 1
            self.scale(scale, shape, "latent")
            self.load(scale, lambda r: (0, shape[0]), lambda r: (0, cols), f"{fused}.{self.suffix}", at)

        part("q_a_proj", self.q_lora, 0, 0)
        self.replicated(prefix + "q_a_layernorm.weight", (self.q_lora,))
        self.one_column(prefix + "q_b_proj", self.heads * (self.nope + self.rope), self.q_lora)
        part("kv_a_proj_with_mqa", kv, self.q_lora, 1)
        self.replicated(prefix + "kv_a_layernorm.weight", (self.kv_lora,))

    def decoder(self, layer):
        p = f"model.layers.{layer}."
        self.fused_a(p + "self_attn.")
        self.one_column(p + "self_attn.kv_b_proj", self.heads * (self.nope + self.v), self.kv_lora)
        self.row(p + "self_attn.o_proj", self.hidden, self.heads * self.v)
        if layer < self.dense_layers:
            self.dense(p + "mlp.", self.ffn)
        else:
            self.experts(p + "mlp.", self.count, self.rows)
            self.replicated(p + "mlp.gate.weight", (self.count, self.hidden))
            # The engine keeps the router's bias in F32.
            self.replicated(p + "mlp.gate.e_score_correction_bias", (self.count,), dest_dtype="F32")
            self.dense(p + "mlp.shared_experts.", self.shared)
        self.replicated(p + "input_layernorm.weight", (self.hidden,))
        self.replicated(p + "post_attention_layernorm.weight", (self.hidden,))

    def lines(self):
        self.vocabulary("model.embed_tokens.weight")
        for layer in range(self.layers):
            self.decoder(layer)
        for layer in range(self.layers, self.layers + self.mtp):
            p = f"model.layers.{layer}."
            self.decoder(layer)
            self.replicated(p + "enorm.weight", (self.hidden,))
            self.replicated(p + "hnorm.weight", (self.hidden,))
            self.replicated(p + "eh_proj.weight", (self.hidden, 2 * self.hidden))
            self.replicated(p + "shared_head.norm.weight", (self.hidden,))
            self.vocabulary(p + "shared_head.head.weight")
            self.vocabulary(p + "embed_tokens.weight")
        self.replicated("model.norm.weight", (self.hidden,))
        self.vocabulary("lm_head.weight")
        return self.text()


def main():
    folder = pathlib.Path(__file__).parent / "contracts"
    folder.mkdir(exist_ok=True)
    for engine, model, tp in LISTINGS:
        text = "\n".join(Listing(engine, model, tp).lines()) + "\n"
        (folder / f"{engine}.{model}.tp{tp}.txt").write_text(text)
    for engine, model, tp, ep in EXPERT_LISTINGS:
        kind = MoeListing if model in MOE_MODELS else MlaListing
        text = "\n".join(kind(engine, model, tp, ep).lines()) + "\n"
        (folder / f"{engine}.{model}.tp{tp}{'-ep' if ep > 1 else ''}.txt").write_text(text)


if __name__ == "__main__":
    main()
