# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Every fault in every model and scheme of every engine, judged by the rules of their loaders.

The expected verdict of a fault is `fail` unless `EXCEPTIONS` names the engine's own rule. The whole
matrix is slow; the ordinary suite takes each fault with some of the engines, models in turn.
"""

import pytest
from checkpoint_faults import (DOWN, E0_GATE, E1_DOWN, E1_UP, FAULTS, GATE, K, KV_A, KV_B, Q, UP,
                               build_faulty)
from fp8_checkpoints import MODELS, build
from loader_verdicts import named
from test_verify_loaders import folder, references, verify  # noqa: F401

ENGINES = {
    "vllm-fp8": {"block": ["llama", "qwen2", "qwen3", "qwen3moe", "dsv3"], "tensor": ["llama"]},
    "vllm-compressed-tensors": {"channel": ["qwen2", "llama", "qwen3", "qwen3moe"],
                                "ct-block": ["llama"], "ct-tensor": ["llama"]},
    "vllm-modelopt": {"pcpt": ["llama", "qwen3"], "pbwo": ["llama"]},
    "transformers-fp8": {"block": ["qwen2", "llama", "qwen3", "qwen3moe", "dsv3-aligned"]},
    "sglang-fp8": {"block": ["qw", "qwen2", "qwen3", "qwen3moe", "dsv3"]},
    "sglang-compressed-tensors": {"channel": ["qw", "qwen3", "qwen3moe"], "ct-block": ["qw"]},
}

# Where a fault does not make the engine fail:
# {fault: {engine prefix, with "/scheme" or "/family": verdict}}.
SURPLUS = {"": "flag", "transformers": "fail", "/qwen3moe": "open", "/dsv3": "open",
           "/pbwo": "open"}
CPU_IGNORES_CONFIG = {"transformers": "open"}
EXCEPTIONS = {
    "nothing": {"": "pass"}, "shards": {"": "pass"}, "scale bf16": {"": "pass"},
    "scale f16": {"": "pass"},
    # transformers takes bytes for E8M0; only against the reference they show to be other scales.
    "scale u8": {"transformers": "open"},
    "scale 0d": {"/ct-tensor": "pass", "/tensor": "pass", "transformers": "open"},
    "scales 0d": {"/ct-tensor": "pass", "/tensor": "pass", "transformers": "open"},
    "scale 3d": {"transformers": "open"},
    "scale one element": {"/ct-tensor": "pass", "/tensor": "pass"},
    "blocks of 64": {"transformers": "open"},
    "scale rows long end": SURPLUS, "scale 64 long end": SURPLUS, "weight rows long end": SURPLUS,
    "weight cols long end": SURPLUS,
    "weight bf16 without scale": {"transformers": "open"},
    "extra layer": {"vllm": "fail", "": "flag", "/dsv3": "open"},
    "unexpected bias": {"": "flag", "/dsv3": "open"},
    "unknown tensor": {"vllm": "fail", "": "flag"},
    "unknown projection": {"vllm": "fail", "": "flag"},
    "experts stacked": {"": "open"},
    "head tied equal": {"": "pass"}, "head tied different": {"": "flag"},
    "head quantized": {"compressed": "open", "modelopt": "open"},
    "skip down": {"": "pass"},
    # SGLang does not look for the parts of its fused layers on the list of compressed-tensors.
    "skip whole qkv": {"": "pass", "sglang-compressed": "open"},
    "skip q": {"transformers": "pass"}, "skip gate": {"transformers": "pass"},
    "ignore list empty": {"": "open"},
    # Only vLLM quantizes the router with the other layers.
    "routers not listed": {"vllm": "fail", "": "pass"},
    "config no block size": CPU_IGNORES_CONFIG, "config no activation scheme": CPU_IGNORES_CONFIG,
    "config static": CPU_IGNORES_CONFIG, "config blocks of 64": CPU_IGNORES_CONFIG,
    "config pack quantized": {"sglang": "open"},
    # Experts take channel scales with activations a token only.
    "config activations by tensor": {"": "pass", "/qwen3moe": "fail"},
    "config num bits 4": {"sglang": "fail", "": "open"}, "config integers": {"": "open"},
    "config without method": {"": "fail"},
}

BLOCK, CHANNEL = {"block", "ct-block", "pbwo"}, {"channel", "pcpt"}
# Faults that only some schemes or families can have.
ONLY_SCHEMES = {
    "scales 2d": {"pcpt", "pbwo"}, "scale transposed": {"block", "ct-block"},
    "scale rows short": {"block", "ct-block"}, "scale cols short": {"block", "ct-block"},
    "scale rows long end": {"block", "ct-block"}, "scale rows long front": {"block", "ct-block"},
    "scale 1d": BLOCK | {"channel"}, "scale 1xn": BLOCK | {"channel"}, "scale 64 short": CHANNEL,
    "scale 64 long end": CHANNEL, "scale 64 long front": CHANNEL, "scale reversed": CHANNEL,
    "scale one element": BLOCK | CHANNEL, "blocks of 64": {"block", "ct-block"},
    "scale two elements": {"tensor", "ct-tensor"},
    "config no block size": {"block"}, "config no activation scheme": {"block", "tensor"},
    "config static": {"block"}, "config blocks of 64": {"block"},
    "config one block size": {"block"},
    "config no algorithm": {"pcpt", "pbwo"}, "config unknown algorithm": {"pcpt", "pbwo"},
    "config no groups": {"channel", "ct-block", "ct-tensor"},
    "config pack quantized": {"channel", "ct-block", "ct-tensor"},
    "config strategy tensor": {"channel", "ct-block"},
    "config strategy channel": {"ct-block", "ct-tensor"},
    "config activations by tensor": {"channel"},
    "config num bits 4": {"channel"}, "config integers": {"channel"},
    "ignore list empty": {"channel", "ct-block", "ct-tensor"},
    "experts stacked": {"block", "channel"},
}
ONLY_FAMILIES = {"bias missing": {"qwen2"}, "expert missing": {"qwen3moe"},
                 "router missing": {"qwen3moe"},
                 "routers not listed": {"qwen3moe"},
                 "experts stacked": {"qwen3moe"}, "unknown projection": {"dsv3"},
                 "head tied equal": {"qwen3 tied"}, "head tied different": {"qwen3 tied"},
                 "skip down": {"llama", "qwen2", "qwen3"}, "skip gate": {"llama", "qwen2", "qwen3"},
                 "skip q": {"llama", "qwen2", "qwen3", "qwen3moe"},
                 "skip whole qkv": {"llama", "qwen2", "qwen3", "qwen3moe"},
                 "swapped k v": {"llama", "qwen2", "qwen3", "qwen3moe"},
                 "unexpected bias": {"llama", "qwen3", "qwen3moe"}}
# The module that stands for another where a family has none.
STAND_INS = {"qwen3moe": {DOWN: E1_DOWN, UP: E1_UP, GATE: E0_GATE}, "dsv3": {Q: KV_B, K: KV_A}}


def family_of(model):
    """The family, and whether the head is tied."""
    return MODELS[model][0], bool(MODELS[model][4].get("tie_word_embeddings"))


def applies(fault, model, scheme):
    """Whether the fault can be made in that checkpoint."""
    family, tied = family_of(model)
    if scheme not in ONLY_SCHEMES.get(fault, {scheme}):
        return False
    wanted = ONLY_FAMILIES.get(fault, {family})
    if wanted == {"qwen3 tied"}:
        return tied
    if (tied or family == "qwen3moe") and fault in (
            "head quantized", "listed but quantized", "scale transposed", "scale cols short"):
        return False
    return family in wanted


def expected(fault, engine, model, scheme):
    """pass, fail, flag or open; the longest key that fits decides."""
    rules = EXCEPTIONS.get(fault, {})
    family = family_of(model)[0]
    fitting = [key for key in rules
               if key == "" or key in engine or key in (f"/{scheme}", f"/{family}")]
    verdict = "fail"
    if fitting:
        verdict = rules[max(fitting, key=lambda key: (key.startswith("/"), len(key)))]
    if engine == "sglang-fp8" and scheme == "block" and family == "llama":
        return "open"
    # SGLang's loader of DeepSeek models knows both names, but not in the layers that it stacks.
    if engine == "sglang-fp8" and family == "dsv3" and fault in ("scale name",
                                                                 "attention scale names"):
        return "pass"
    return verdict


def matrix():
    """(fault, engine, model, scheme) of everything that applies."""
    return [(fault, engine, model, scheme) for engine, schemes in ENGINES.items()
            for scheme, models in schemes.items() for model in models for fault in FAULTS
            if applies(fault, model, scheme)]


def sample():
    """Each fault with up to three engines, other ones for the next fault, with one model each."""
    found = {}
    for fault, engine, model, scheme in matrix():
        found.setdefault(fault, {}).setdefault(engine, []).append((model, scheme))
    chosen = []
    for number, (fault, engines) in enumerate(found.items()):
        names = sorted(engines)
        for step in range(min(3, len(names))):
            engine = names[(number + 2 * step) % len(names)]
            options = engines[engine]
            chosen.append((fault, engine, *options[(number + step) % len(options)]))
    return sorted(set(chosen))


def judge(fault, engine, model, scheme, folder, references, tp=1):  # noqa: F811
    """Holds the verdict against the expected one, without the reference wherever possible."""
    family = family_of(model)[0]
    default = FAULTS[fault][1]
    module = STAND_INS.get(family, {}).get(default) if fault not in ("unexpected bias",
                                                                    "unknown projection") else None
    faulty = build_faulty(model, scheme, fault, module)
    faulty.write(folder)
    wanted = expected(fault, engine, model, scheme)
    # A square matrix looks the same transposed.
    square = fault == "weight transposed" and len(
        set(faulty.reference[(module or default) + ".weight"].shape)) == 1
    extra = ["--reference", references(model, scheme)] if FAULTS[fault][2] or square else []
    code, root = verify(folder, "--engine", engine, "--tp", tp, *extra)
    said = f"{fault}, {engine}, {model}, {scheme}: expected {wanted}, found {code}\n" + "\n".join(
        f["message"] for f in root["findings"])
    assert code in (0, 1), said
    target = module or default
    pattern = "*" if target is None else target + "*"
    if wanted == "pass":
        assert code == 0, said
    elif wanted == "fail":
        assert code == 1, said
        if fault not in ("skip q", "skip gate", "listed but quantized"):
            assert named(root["findings"], pattern, ("error",)), said
    elif wanted == "flag":
        assert named(root["findings"], pattern), said


@pytest.mark.parametrize("fault, engine, model, scheme", sample())
def test_a_fault_is_judged_by_the_rules_of_the_engine(
        fault, engine, model, scheme, folder, references):  # noqa: F811
    """One model and scheme a fault and engine."""
    judge(fault, engine, model, scheme, folder, references)


@pytest.mark.slow
@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("fault, engine, model, scheme", matrix())
def test_a_fault_is_judged_so_in_every_model(fault, engine, model, scheme, tp, folder,  # noqa: F811
                                             references):  # noqa: F811
    """The whole matrix, with two ranks too where the engine has them."""
    if tp > 1 and engine.startswith("transformers"):
        pytest.skip("transformers has no tensor parallelism")
    judge(fault, engine, model, scheme, folder, references, tp)


def test_every_fault_is_somewhere_in_the_ordinary_suite():
    """A fault that applies nowhere would prove nothing."""
    assert {row[0] for row in sample()} == set(FAULTS)
    assert build("llama", "block").modules()
