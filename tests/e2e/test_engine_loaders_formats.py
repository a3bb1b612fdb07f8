# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Blocks of other sizes and groups of several formats: `refitbench verify` beside the loader
classes of vLLM and SGLang.

Slow. What the groups of a configuration make of a layer is not worked out here: each configuration
is loaded with weights in several formats, of which the engine takes some and not others.
"""

import collections
import re
import shutil

import numpy
import pytest
from checkpoints import f32_of_bf16
from fp8_checkpoints import build, is_quantized, quantization_config, quantized, scaled
from test_engine_loaders import disagreement, loaders  # noqa: F401
from test_save_pretrained import peers_python  # noqa: F401
from test_verify_loaders import folder, references, verify  # noqa: F401
from test_weight_formats import in_blocks, requantize, static_modelopt

pytestmark = pytest.mark.slow

COMPRESSED = ["vllm-compressed-tensors", "sglang-compressed-tensors"]


# Blocks
# --------------------------------------------------------------------------------------------------

BLOCKS = [(64, 64), (32, 32), (128, 64), (64, 128), (256, 256), (1, 32)]
MODELS = {"vllm": ["llama", "llama-ffn320", "llama-h192", "llama-q192", "qwen2", "qwen3",
                   "qwen3moe", "qwen3moe-i192", "dsv3"],
          "sglang": ["qw", "qw-ffn320", "qw-h192", "qw-q192", "qwen2", "qwen3", "qwen3moe",
                     "qwen3moe-i192", "dsv3"]}


def _change(checkpoint, module, change):
    name = checkpoint.scale_name(module)
    dtype, array = checkpoint.tensors[name]
    checkpoint.tensors[name] = (dtype, change(array))


# What is broken, in the first module whose name ends so.
BLOCK_FAULTS = {
    "nothing": lambda c, m, size: None,
    "scale missing": lambda c, m, size: c.tensors.pop(c.scale_name(m)),
    "a row of scales missing": lambda c, m, size: _change(c, m, lambda a: a[:-1]),
    "a column of scales missing": lambda c, m, size: _change(c, m, lambda a: a[:, :-1]),
    "transposed": lambda c, m, size: _change(c, m, lambda a: a.T.copy()),
    "one block for two": lambda c, m, size: requantize(
        c, lambda name: name == m + ".weight", lambda v: quantized(v, 2 * size[0], 2 * size[1])),
    "every block doubled": lambda c, m, size: requantize(
        c, lambda name: True, lambda v: quantized(v, 2 * size[0], 2 * size[1])),
}


def block_rows(engine):
    """(model, size, fault, tp)"""
    for model in MODELS[engine.split("-")[0]]:
        if engine == COMPRESSED[1] and model == "dsv3":
            continue
        for size in BLOCKS:
            for tp in (1, 2, 4):
                yield model, size, "nothing", tp
            if size in ((64, 64), (128, 64)) and not re.search("192|320", model):
                yield from ((model, size, fault, tp) for fault in BLOCK_FAULTS for tp in (1, 2)
                            if fault != "nothing")


def broken_blocks(model, scheme, size, fault):
    """A checkpoint in blocks of that size with that fault."""
    checkpoint = in_blocks(model, scheme, *size)
    module = next(m for m in reversed(checkpoint.modules()) if m.endswith("down_proj"))
    BLOCK_FAULTS[fault](checkpoint, module, size)
    return checkpoint


@pytest.mark.parametrize("engine", ["vllm-fp8", "sglang-fp8", *COMPRESSED])
def test_blocks_of_any_size_are_judged_as_the_loader_classes_take_them(
        engine, loaders, folder, references):  # noqa: F811
    scheme = "block" if engine.endswith("fp8") else "ct-block"
    rows = ((f"{model}, blocks of {size}, {fault}, tp {tp}", model, tp,
             lambda m=model, s=size, f=fault: broken_blocks(m, scheme, s, f))
            for model, size, fault, tp in block_rows(engine))
    compare(engine, rows, scheme, loaders, folder, references)


# Groups
# --------------------------------------------------------------------------------------------------

CHANNEL, BLOCK, TENSOR, FINE = "channel", "ct-block", "ct-tensor", "blocks of 64"
PARTS = ["model.layers.%d.self_attn.%s_proj" % (layer, leaf) for layer in (0, 1) for leaf in "qkv"]
FIRST = ["model.layers.%d.mlp.experts.0.%s_proj" % (layer, leaf)
         for layer in (0, 1) for leaf in ("gate", "up", "down")]

# name: ([(group, format, targets)], more of the ignore list)
GROUPS = {
    "attention apart": ([("a", BLOCK, ["re:.*self_attn.*"]), ("b", CHANNEL, ["Linear"])], []),
    "attention last": ([("b", CHANNEL, ["Linear"]), ("a", BLOCK, ["re:.*self_attn.*"])], []),
    "experts apart": ([("x", BLOCK, ["re:.*mlp.experts.*"]), ("y", CHANNEL, ["Linear"])], []),
    "first experts by name": ([("x", BLOCK, FIRST), ("y", CHANNEL, ["Linear"])], []),
    "parts by pattern": ([("a", BLOCK, ["re:.*[qkv]_proj$"]), ("b", CHANNEL, ["Linear"])], []),
    "parts by name": ([("a", BLOCK, PARTS), ("b", CHANNEL, ["Linear"])], []),
    "parts without linear": ([("a", BLOCK, PARTS), ("b", CHANNEL, ["re:.*mlp.*", "re:.*o_proj"])],
                             []),
    "two of three parts": ([("a", BLOCK, ["re:.*[qk]_proj$"]), ("b", CHANNEL, ["Linear"])], []),
    "parts in two groups": ([("a", BLOCK, ["re:.*[qk]_proj$"]), ("b", CHANNEL, ["re:.*proj$"])],
                            []),
    "fused by pattern": ([("a", BLOCK, ["re:.*qkv_proj"]), ("b", CHANNEL, ["Linear"])], []),
    "attention alone": ([("a", CHANNEL, ["re:.*self_attn.*"])], []),
    "two patterns": ([("a", CHANNEL, ["re:.*mlp.*"]), ("b", BLOCK, ["re:.*self_attn.*"])], []),
    "two patterns of the same": ([("z", CHANNEL, ["re:.*proj"]), ("a", BLOCK, ["re:.*_proj"])], []),
    "classes": ([("a", BLOCK, ["QKVParallelLinear"]), ("b", CHANNEL, ["Linear"])], []),
    "classes last": ([("b", CHANNEL, ["Linear"]), ("a", BLOCK, ["QKVParallelLinear"])], []),
    "classes of experts": ([("a", BLOCK, ["RoutedExperts", "FusedMoE"]),
                            ("b", CHANNEL, ["Linear"])], []),
    "linear twice": ([("a", CHANNEL, ["Linear"]), ("b", BLOCK, ["Linear"])], []),
    "down by tensors": ([("a", TENSOR, ["re:.*down_proj"]), ("b", CHANNEL, ["Linear"])], []),
    "one layer": ([("a", BLOCK, [r"re:model\.layers\.0\..*"]), ("b", CHANNEL, ["Linear"])], []),
    "two block sizes": ([("a", FINE, ["re:.*self_attn.*"]), ("b", BLOCK, ["Linear"])], []),
    "ignored output": ([("a", BLOCK, ["re:.*self_attn.*"]), ("b", CHANNEL, ["Linear"])],
                       ["re:.*o_proj"]),
    "ignored experts": ([("a", BLOCK, ["re:.*self_attn.*"]), ("b", CHANNEL, ["Linear"])],
                        ["re:.*experts.*"]),
}

# Which weights have which format; the first pattern that is found in the name counts.
RAW = "raw"
FORMATS = {
    "channels": [("", CHANNEL)], "blocks": [("", BLOCK)],
    "attention by blocks": [("self_attn", BLOCK), ("", CHANNEL)],
    "attention by channels": [("self_attn", CHANNEL), ("", BLOCK)],
    "parts by blocks": [("[qkv]_proj", BLOCK), ("", CHANNEL)],
    "experts by blocks": [("experts", BLOCK), ("", CHANNEL)],
    "down by tensors": [("down_proj", TENSOR), ("", CHANNEL)],
    "one layer by blocks": [("layers.0", BLOCK), ("", CHANNEL)],
    "attention in blocks of 64": [("self_attn", FINE), ("", BLOCK)],
    "raw but attention": [("self_attn", CHANNEL), ("", RAW)],
    "raw output": [("o_proj", RAW), ("self_attn", BLOCK), ("", CHANNEL)],
    "raw experts": [("experts", RAW), ("self_attn", BLOCK), ("", CHANNEL)],
}


def group_of(form, targets):
    """A group of a compressed-tensors config."""
    group = quantization_config(BLOCK if form == FINE else form)["config_groups"]["group_0"]
    if form == FINE:
        group["weights"]["block_structure"] = [64, 64]
        group["input_activations"]["group_size"] = 64
    return group | {"targets": targets}


def grouped(model, groups, formats):
    """A checkpoint with these groups, and weights in these formats whatever the groups say."""
    checkpoint = build(model, CHANNEL)
    for name in [name for name in checkpoint.reference if is_quantized(name)]:
        form = next(form for pattern, form in (FORMATS | RAW_FORMATS)[formats]
                    if re.search(pattern, name))
        scale = checkpoint.scale_name(name.removesuffix(".weight"))
        values = f32_of_bf16(checkpoint.reference[name])
        if form == RAW:
            checkpoint.tensors[name] = ("BF16", checkpoint.reference[name])
            checkpoint.tensors.pop(scale)
            continue
        codes, scales = quantized(values, 64, 64) if form == FINE else scaled(form, values)
        checkpoint.tensors[name] = ("F8_E4M3", codes)
        checkpoint.tensors[scale] = ("F32", scales)
    named, ignored = groups
    checkpoint.quantization["config_groups"] = {
        name: group_of(form, targets) for name, form, targets in named}
    checkpoint.quantization["ignore"] += ignored
    return checkpoint


def own_models(engine):
    """A dense model that the engine's loader of its family takes, and one with experts."""
    return ["llama" if engine.startswith("vllm") else "qw", "qwen3moe"]


@pytest.mark.parametrize("engine", COMPRESSED)
def test_groups_of_several_formats_are_told_apart_as_the_loader_classes_do(
        engine, loaders, folder, references):  # noqa: F811
    rows = ((f"groups {groups}, weights {formats}, {model}, tp {tp}", model, tp,
             lambda m=model, g=groups, f=formats: grouped(m, GROUPS[g], f))
            for model in own_models(engine) for groups in GROUPS for formats in FORMATS
            for tp in ((1, 2) if formats in ("attention by blocks", "experts by blocks") else (1,))
            if ("expert" not in groups + formats or model == "qwen3moe")
            # SGLang's loader of experts spreads one value over a column of channel scales: right,
            # although no config says so.
            and not (formats == "down by tensors" and model == "qwen3moe"))
    compare(engine, rows, CHANNEL, loaders, folder, references)


# Ignore lists
# --------------------------------------------------------------------------------------------------

LAYERS = ["model.layers.0.", "model.layers.1."]
LISTS = {
    "parts by pattern": ["re:.*[qkv]_proj$"], "parts by name": PARTS,
    "parts by their last component": ["q_proj", "k_proj", "v_proj"],
    "one part": [at + "self_attn.q_proj" for at in LAYERS],
    "ends of paths": ["self_attn.o_proj"], "an end of a name": ["o_proj"],
    "fused layers": [at + "self_attn.qkv_proj" for at in LAYERS],
    "parents": [at + "self_attn" for at in LAYERS], "parents by pattern": ["re:.*self_attn"],
    "beginnings of names": [at + "mlp.gate" for at in LAYERS] + [at + "mlp.dow" for at in LAYERS],
    "stacks of experts": [at + "mlp.experts" for at in LAYERS],
    "the first expert": FIRST, "the second expert": [name.replace("s.0.", "s.1.")
                                                     for name in FIRST],
    "parents of experts": [f"{at}mlp.experts.{expert}" for at in LAYERS for expert in range(4)],
    "up of experts": ["re:.*experts.*up_proj"],
}
RAW_FORMATS = {"all by channels": [("", CHANNEL)],
               "raw attention": [("self_attn", RAW), ("", CHANNEL)],
               "raw parts": [("[qkv]_proj", RAW), ("", CHANNEL)],
               "raw outputs": [("o_proj", RAW), ("", CHANNEL)],
               "raw experts": [("experts", RAW), ("", CHANNEL)]}


@pytest.mark.parametrize("engine", COMPRESSED)
def test_ignore_lists_are_read_as_the_loader_classes_do(
        engine, loaders, folder, references):  # noqa: F811
    rows = ((f"ignore {entries}, weights {formats}, {model}, tp 1", model, 1,
             lambda m=model, e=entries, f=formats: grouped(
                 m, ([("g", CHANNEL, ["Linear"])], LISTS[e]), f))
            for model in own_models(engine) for entries in LISTS for formats in RAW_FORMATS
            if ("expert" not in entries + formats or model == "qwen3moe")
            # SGLang loads what its model class does not find on the list: right, and not what the
            # list says.
            and not (model == "qw" and formats == "all by channels"
                     and entries in ("parts by name", "one part")))
    compare(engine, rows, CHANNEL, loaders, folder, references)


# Experts of ModelOpt
# --------------------------------------------------------------------------------------------------

MODULE = "model.layers.0.mlp.experts.2.up_proj"


def modelopt(change):
    """A checkpoint of algorithm FP8, whose experts have one scale a projection, changed."""
    checkpoint = static_modelopt()
    change(checkpoint)
    return checkpoint


def raw_experts(entries):
    """A checkpoint of channel scales without experts, which the list names so."""
    checkpoint = build("qwen3moe", "pcpt")
    listed = checkpoint.quantization["ignore"][:]
    for module in [module for module in checkpoint.modules() if ".experts." in module]:
        checkpoint.skip(module)
    checkpoint.quantization["ignore"] = listed + entries
    return checkpoint


MODELOPT = {
    "nothing": lambda: modelopt(lambda c: None),
    "scale missing": lambda: modelopt(lambda c: c.tensors.pop(MODULE + ".weight_scale")),
    "weight missing": lambda: modelopt(lambda c: c.tensors.pop(MODULE + ".weight")),
    "two scales": lambda: modelopt(lambda c: c.tensors.update({
        MODULE + ".weight_scale": ("F32", numpy.full(2, 0.01, numpy.float32))})),
    "two input scales": lambda: modelopt(lambda c: c.tensors.update({
        MODULE + ".input_scale": ("F32", numpy.full(2, 0.01, numpy.float32))})),
    "short": lambda: modelopt(lambda c: c.tensors.update({
        MODULE + ".weight": ("F8_E4M3", c.tensors[MODULE + ".weight"][1][:, :128])})),
    "by channels": lambda: build("qwen3moe", "pcpt"),
    "raw by shell pattern": lambda: raw_experts(["model.layers.*.mlp.experts*"]),
    "raw by stack": lambda: raw_experts([at + "mlp.experts" for at in LAYERS]),
    "raw by first expert": lambda: raw_experts(FIRST),
    "raw by one layer": lambda: raw_experts(["model.layers.0.mlp.experts*"]),
}


def test_experts_of_modelopt_are_judged_as_the_loader_classes_take_them(
        loaders, folder, references):  # noqa: F811
    rows = ((f"{name}, tp {tp}", "qwen3moe", tp, MODELOPT[name])
            for name in MODELOPT for tp in (1, 2))
    compare("vllm-modelopt", rows, "pcpt", loaders, folder, references)


def compare(engine, rows, scheme, loaders, folder, references):  # noqa: F811
    """Holds the verdict on every (name, model, tp, function that builds it) against the engine."""
    loader = loaders(engine.split("-")[0])
    counts, found = collections.Counter(), []
    for number, (name, model, tp, make) in enumerate(rows):
        written = make().write(folder / str(number))
        reference = references(model, scheme)
        outcome, said = loader.load(written, reference, tp)
        if outcome == "raises" and "from the 'CPU' backend" in said:
            # SGLang makes other matrices of DeepSeek's kv_b_proj with kernels that only GPUs have.
            shutil.rmtree(written)
            counts["needs a GPU"] += 1
            continue
        code, root = verify(written, "--engine", engine, "--tp", tp, "--reference", reference)
        shutil.rmtree(written)
        counts[outcome] += 1
        what = disagreement(outcome, code, False)
        if what:
            lines = [f"{name}: {what}", f"{loader.version}: {outcome} {said}"]
            lines += [f"verify: {f['severity']} {f['message']}" for f in root["findings"]]
            found.append("\n  ".join(lines))
            print(found[-1], flush=True)  # The whole engine takes minutes.
    print(f"{engine}, {loader.version}: {dict(counts)}")
    assert counts["right"] and counts["raises"], counts
    assert not found, f"{len(found)} of {sum(counts.values())} rows\n" + "\n".join(found)
