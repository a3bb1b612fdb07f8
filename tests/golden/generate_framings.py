#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Writes framings/<list>.txt: where each framing of the field ends a message, and where tensors stand in it.

Each rule is written from the description of its original, as a producer that draws tensors from an iterator, and on its
own: nothing is taken from the C++ code, which is tested against these files.
  vllm-packed, nemo-packed   vLLM 017e9f4 packed_tensor.py, NeMo-RL 7ea279a packed_tensor.py: append, then leave the
                             loop when the total is greater than the buffer
  vllm-ipc                   vLLM 017e9f4 packed_tensor.py, IPC part: flush what is there before it would exceed
  sglang-bucket              AReaL cbff54d fsdp_engine.py: close before the overflow; SGLang 8905cbd tensor_bucket.py: bytes
  prime-rl                   prime-rl 559b447 nccl.py: one dictionary {dtype: tensors} for what is outside of the layers,
                             then one a layer

Lines:
  tensor NAME DTYPE SHAPE         SHAPE is 3x4, or - without dimensions
  case FRAMING BUFFER
  message BYTES INDEX@OFFSET ...
  error TEXT                      instead of messages
  view INDEX TEXT                 PyTorch refuses the view of that tensor at its place

Run: python3 tests/golden/generate_framings.py
"""

import math
import pathlib
import random

ITEMSIZE = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1}
TORCH = {"BF16": "BFloat16", "F16": "Half", "F32": "Float"}
LIMIT = 5 * 1024**3


def size(tensor):
    return math.prod(tensor[2]) * ITEMSIZE[tensor[1]]


def packed(tensors, buffer):
    stream = iter(enumerate(tensors))
    exhausted = False
    while not exhausted:
        held, total = [], 0
        while True:
            following = next(stream, None)
            if following is None:
                exhausted = True
                break
            held.append((following[0], total))
            total += size(following[1])
            if total > buffer:
                break
        if held:
            yield total, held


def ipc(tensors, buffer):
    held, total = [], 0
    for index, tensor in enumerate(tensors):
        if size(tensor) > buffer:
            raise ValueError(f"Tensor '{tensor[0]}' has size {size(tensor)} bytes, which exceeds buffer_size_bytes="
                             f"{buffer}. Increase buffer_size_bytes to at least {size(tensor)}.")
        if total and total + size(tensor) > buffer:
            yield total, held
            held, total = [], 0
        held.append((index, total))
        total += size(tensor)
    if held:
        yield total, held


def requests(tensors, buffer):
    pending = []
    for index, tensor in enumerate(tensors):
        if pending and sum(size(tensors[i]) for i in pending) + size(tensor) > buffer:
            yield flattened(tensors, pending)
            pending = []
        pending.append(index)
    if pending:
        yield flattened(tensors, pending)


def flattened(tensors, indices):
    starts = [sum(size(tensors[j]) for j in indices[:k]) for k in range(len(indices))]
    return sum(size(tensors[i]) for i in indices), list(zip(indices, starts))


def state_dicts(tensors, _buffer):
    def layer(name):
        parts = name.split(".")
        return int(parts[parts.index("layers") + 1]) if "layers" in parts else -1

    for number in sorted({layer(t[0]) for t in tensors}):
        by_dtype = {}
        for index, tensor in enumerate(tensors):
            if layer(tensor[0]) == number:
                by_dtype.setdefault(tensor[1], []).append(index)
        for indices in by_dtype.values():
            yield flattened(tensors, indices)


FRAMINGS = {"vllm-packed": packed, "nemo-packed": packed, "vllm-ipc": ipc, "sglang-bucket": requests,
            "prime-rl": state_dicts}
VIEWED = {"vllm-packed", "vllm-ipc", "sglang-bucket"}


def llama(layers=2, hidden=512, ffn=1024, vocabulary=1024):
    yield "model.embed_tokens.weight", "BF16", (vocabulary, hidden)
    for n in range(layers):
        stem = f"model.layers.{n}."
        yield stem + "input_layernorm.weight", "BF16", (hidden,)
        for module, rows, cols in [("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", hidden, hidden),
                                   ("self_attn.v_proj", hidden, hidden), ("self_attn.o_proj", hidden, hidden),
                                   ("mlp.gate_proj", ffn, hidden), ("mlp.up_proj", ffn, hidden),
                                   ("mlp.down_proj", hidden, ffn)]:
            yield stem + module + ".weight", "F8_E4M3", (rows, cols)
            yield stem + module + ".weight_scale_inv", "F32", (-(-rows // 128), -(-cols // 128))
        yield stem + "post_attention_layernorm.weight", "BF16", (hidden,)
    yield "model.norm.weight", "BF16", (hidden,)
    yield "lm_head.weight", "BF16", (vocabulary, hidden)


def scattered(seed):
    """Sizes around every boundary, types in any order, layers out of order and one with two digits."""
    draw = random.Random(seed)
    for k in range(60):
        dtype = draw.choice(list(ITEMSIZE))
        shape = tuple(draw.choice([1, 2, 3, 5, 8, 13, 64, 100]) for _ in range(draw.choice([1, 1, 2, 3])))
        stem = draw.choice(["model", "model.layers.2", "model.layers.10", "model.layers.0"])
        yield f"{stem}.tensor_{k}.weight", dtype, shape


LISTS = {
    "block-llama": (list(llama()), [262144, 262145, 264192, 1048576, 1 << 20 | 1, 1 << 40]),
    "odd-llama": (list(llama(1, 257, 640, 200)), [65536, 102800, 164480, 164481, 1 << 30]),
    "scattered": (list(scattered(5)), [1, 64, 100, 1000, 4096, 10**6]),
    "exact": ([("a", "U8", (100,)), ("b", "U8", (100,)), ("c", "U8", (1,)), ("d", "F32", (24,)), ("e", "F32", ())],
              [99, 100, 101, 200, 201]),
}


def lines(tensors, buffers):
    for name, dtype, shape in tensors:
        yield f"tensor {name} {dtype} {'x'.join(map(str, shape)) or '-'}"
    for framing, rule in FRAMINGS.items():
        for buffer in buffers:
            yield f"case {framing} {buffer}"
            try:
                messages = list(rule(tensors, buffer))
            except ValueError as error:
                yield f"error {error}"
                continue
            for total, held in messages:
                yield f"message {total} " + " ".join(f"{index}@{offset}" for index, offset in held)
            for _, held in messages if framing in VIEWED else []:
                for index, offset in held:
                    dtype = tensors[index][1]
                    if offset % ITEMSIZE[dtype]:
                        yield (f"view {index} RuntimeError: self.storage_offset() must be divisible by {ITEMSIZE[dtype]} "
                               f"to view Byte as {TORCH[dtype]} (different element sizes), but got {offset}")


if __name__ == "__main__":
    folder = pathlib.Path(__file__).parent / "framings"
    folder.mkdir(exist_ok=True)
    for stem, (tensors, buffers) in LISTS.items():
        (folder / f"{stem}.txt").write_text("\n".join(lines(tensors, buffers)) + "\n", encoding="utf-8")
