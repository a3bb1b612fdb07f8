# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""`refitbench verify` on odd but realistic checkpoints: dtypes that no engine has, scales out of range,
incomplete layers for multi-token prediction, stacked experts, files without an index, the strict profile."""

import json

import numpy
import pytest
from checkpoint_faults import DOWN, FAULTS, GATE, K, O, Q, V, build_faulty, stack_experts
from checkpoints import bf16, f32_of_bf16, write_safetensors
from fp8_checkpoints import build, float8, quantized
from loader_verdicts import named
from test_verify import spoken, with_mtp
from test_verify_faults import STAND_INS, applies, family_of
from test_verify_loaders import folder, references, verify  # noqa: F401

ERROR = ("error",)


# Dtypes that the format has and engines have not -----------------------------------------------------

FOREIGN = {  # dtype: (array of 512 x 256 elements as stored, word of the finding)
    "F8_E4M3FNUZ": (numpy.full((512, 256), 0x30, numpy.uint8), "MI300"),
    "F8_E5M2FNUZ": (numpy.full((512, 256), 0x30, numpy.uint8), "MI300"),
    "F8_E5M2": (numpy.full((512, 256), 0x30, numpy.uint8), "E5M2"),
    "F8_E8M0": (numpy.full((512, 256), 0x7F, numpy.uint8), "E8M0"),
    "C64": (numpy.ones((512, 256), numpy.complex64), "imaginary"),
    "F4": (numpy.full((512, 128), 0x11, numpy.uint8), "F4"),
    "F6_E2M3": (numpy.full((512, 192), 0x11, numpy.uint8), "F6_E2M3"),
    "F6_E3M2": (numpy.full((512, 192), 0x11, numpy.uint8), "F6_E3M2"),
    "I32": (numpy.ones((512, 256), numpy.int32), "I32"),
}


def put(path, name, dtype, array, shape):
    """Replaces one tensor of a file by one whose elements need not be whole bytes."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:8 + length]), content[8 + length:]
    meta = header.pop("__metadata__")
    parts = {key: data[slice(*row["data_offsets"])] for key, row in header.items()}
    parts[name] = array.tobytes()
    header[name] |= {"dtype": dtype, "shape": shape}
    begin, body = 0, []
    for key in sorted(parts):
        header[key]["data_offsets"] = [begin, begin + len(parts[key])]
        begin += len(parts[key])
        body.append(parts[key])
    text = json.dumps({"__metadata__": meta} | header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(body))


@pytest.mark.parametrize("dtype", FOREIGN)
def test_a_dtype_of_no_engine_is_a_finding_with_a_remedy(dtype, folder, references):  # noqa: F811
    """The file is sound: it is no damage, and no reason to stop."""
    build("llama", "block").write(folder)
    array, word = FOREIGN[dtype]
    put(folder / "model.safetensors", GATE + ".weight", dtype, array, [512, 256])
    for extra in ([], ["--reference", references("llama", "block")]):
        code, root = verify(folder, "--engine", "vllm-fp8", *extra)
        assert code == 1
        found = [f for f in named(root["findings"], GATE + ".weight", ERROR) if f["check"] == "dtype"]
        assert len(found) == 1 and found[0]["measured"] == dtype
        assert word in found[0]["message"] and "F8_E4M3" in found[0]["message"] and found[0]["remedy"]


def test_the_safetensors_package_writes_such_files_too(folder):  # noqa: F811
    """F8_E8M0 and F4 as the package lays them out; the scales of another format are no scales here."""
    serialize_file = pytest.importorskip("safetensors").serialize_file
    c = build("llama", "block")
    tensors = {name: {"dtype": dtype, "shape": list(array.shape), "data": array.tobytes()}
               for name, (dtype, array) in c.tensors.items()}
    names = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F32": "float32"}
    for row in tensors.values():
        row["dtype"] = names[row["dtype"]]
    c.write(folder)
    try:
        tensors[GATE + ".weight"] = {"dtype": "float4_e2m1fn_x2", "shape": [512, 128],
                                     "data": bytes(512 * 128)}
        serialize_file(tensors, str(folder / "model.safetensors"), {"format": "pt"})
    except Exception as reason:  # the package's own error type, of a version without the dtype
        pytest.skip(f"this safetensors package does not write F4: {reason}")
    code, root = verify(folder, "--engine", "vllm-fp8")
    assert code == 1 and named(root["findings"], GATE + ".weight", ERROR)[0]["measured"]


def test_a_dtype_that_nobody_knows_ends_with_3(folder):  # noqa: F811
    """With file and tensor, since nothing can be said of its size."""
    build("llama", "block").write(folder)
    put(folder / "model.safetensors", GATE + ".weight", "F5_E2M2", numpy.zeros(8, numpy.uint8), [8])
    done = spoken(folder)
    assert done.returncode == 3
    assert "model.safetensors" in done.stderr and GATE in done.stderr and "F5_E2M2" in done.stderr


def test_a_tensor_that_ends_within_a_byte_is_malformed(folder):  # noqa: F811
    build("llama", "block").write(folder)
    put(folder / "model.safetensors", GATE + ".weight", "F4", numpy.zeros(2, numpy.uint8), [3])
    done = spoken(folder)
    assert done.returncode == 3 and "whole bytes" in done.stderr


# Scales that are numbers, but cannot be meant --------------------------------------------------------

@pytest.mark.parametrize("scheme, engine", [("block", "vllm-fp8"), ("channel", "sglang-compressed-tensors"),
                                            ("pbwo", "vllm-modelopt"), ("block", "strict")])
@pytest.mark.parametrize("value", [3e38, 1e-40])
def test_a_scale_out_of_range_is_found_without_a_reference(scheme, engine, value, folder):  # noqa: F811
    c = build("qw", scheme)
    dtype, scales = c.tensors[c.scale_name(DOWN)]
    changed = scales.copy()
    changed.reshape(-1)[1] = value
    c.tensors[c.scale_name(DOWN)] = (dtype, changed)
    c.write(folder)
    code, root = verify(folder, "--engine", engine)
    finding, = named(root["findings"], c.scale_name(DOWN), ERROR)
    assert code == 1 and finding["check"] == "nonfinite"
    assert finding["index"] == [int(i) for i in numpy.unravel_index(1, scales.shape)]


def test_a_large_scale_over_small_codes_and_a_small_one_over_zeros_are_no_faults(folder):  # noqa: F811
    """3e38 times 1 is a number; 1e-40 times 0 is 0."""
    c = build("llama", "block")
    dtype, codes = c.tensors[DOWN + ".weight"]
    codes = codes.copy()
    codes[:128, :128], codes[:128, 128:256] = 0x38, 0x00
    c.tensors[DOWN + ".weight"] = (dtype, codes)
    dtype, scales = c.tensors[c.scale_name(DOWN)]
    scales = scales.copy()
    scales[0, :2] = 3e38, 1e-40
    c.tensors[c.scale_name(DOWN)] = (dtype, scales)
    c.write(folder)
    code, root = verify(folder, "--engine", "vllm-fp8")
    assert code == 0, [f["message"] for f in root["findings"]]


def test_weights_that_are_so_small_are_believed_where_the_reference_has_them(folder, tmp_path):  # noqa: F811
    c = build("llama", "channel")
    patterns = c.reference[DOWN + ".weight"].copy()
    patterns[5] = bf16(f32_of_bf16(patterns[5]) * numpy.float32(2.0 ** -124))
    codes, scales = quantized(f32_of_bf16(patterns), 1, patterns.shape[1])
    assert 0 < scales[5, 0] < 2.0 ** -126
    c.reference[DOWN + ".weight"] = patterns
    c.tensors[DOWN + ".weight"] = ("F8_E4M3", codes)
    c.tensors[c.scale_name(DOWN)] = ("F32", scales)
    c.write(folder)
    assert verify(folder, "--engine", "vllm-compressed-tensors")[0] == 1
    code, root = verify(folder, "--engine", "vllm-compressed-tensors", "--reference",
                        c.write_reference(tmp_path / "reference"))
    finding, = named(root["findings"], c.scale_name(DOWN))
    assert code == 0 and finding["severity"] == "warning" and "--reference" in finding["message"]


@pytest.mark.parametrize("value", [3e38, 1e-40])
def test_an_input_scale_out_of_range_is_found(value, folder):  # noqa: F811
    c = build("llama", "tensor")
    c.quantization["activation_scheme"] = "static"
    for module in c.modules():
        c.tensors[module + ".input_scale"] = ("F32", numpy.full(1, 0.02, numpy.float32))
    assert verify(c.write(folder), "--engine", "vllm-fp8")[0] == 0
    c.tensors[O + ".input_scale"] = ("F32", numpy.full(1, value, numpy.float32))
    code, root = verify(c.write(folder), "--engine", "vllm-fp8")
    assert code == 1 and named(root["findings"], O + ".input_scale", ERROR)


# Layers for multi-token prediction ---------------------------------------------------------------------

def _without(c, *names):
    for name in names:
        del c.tensors[name]


def _nan_code(c, name):
    dtype, array = c.tensors[name]
    array = array.copy()
    array[3, 3] = 0x7F
    c.tensors[name] = (dtype, array)


MTP = {
    "complete": lambda c: None,
    "without its own embedding and head": lambda c: _without(
        c, "model.layers.2.embed_tokens.weight", "model.layers.2.shared_head.head.weight"),
    "one expert missing": lambda c: _without(
        c, *[name for name in c.tensors if name.startswith("model.layers.2.mlp.experts.3.")]),
    "nothing but its norms": lambda c: _without(
        c, *[name for name in c.tensors if name.startswith("model.layers.2.") and "norm" not in name]),
    "a scale missing": lambda c: _without(c, "model.layers.2.self_attn.o_proj.weight_scale_inv"),
    "a NaN code": lambda c: _nan_code(c, "model.layers.2.self_attn.o_proj.weight"),
}


@pytest.mark.parametrize("engine", ["vllm-fp8", "sglang-fp8"])
@pytest.mark.parametrize("what", MTP)
def test_the_main_model_loads_whatever_the_layer_for_multi_token_prediction_is(what, engine,
                                                                               folder):  # noqa: F811
    """Its loader skips the names; a warning says that a draft model would not load."""
    c = build("dsv3", "block")
    with_mtp(c)
    MTP[what](c)
    code, root = verify(c.write(folder), "--engine", engine)
    assert code == 0, [f["message"] for f in root["findings"]]
    assert bool(named(root["findings"], "model.layers.2.*")) == (what != "complete")
    assert all("draft model" in f["message"] for f in named(root["findings"], "model.layers.2.*"))


def test_a_layer_that_is_no_draft_layer_stays_an_error(folder):  # noqa: F811
    """One decoder layer less than the configuration says, and a layer that it does not have."""
    c = build("dsv3", "block")
    with_mtp(c)
    del c.tensors["model.layers.1.self_attn.o_proj.weight_scale_inv"]
    code, root = verify(c.write(folder), "--engine", "vllm-fp8")
    assert code == 1 and named(root["findings"], "model.layers.1.self_attn.o_proj.*", ERROR)
    c = build("dsv3", "block")
    with_mtp(c)
    c.config["num_nextn_predict_layers"] = 0
    code, root = verify(c.write(folder), "--engine", "vllm-fp8")
    assert code == 1 and named(root["findings"], "model.layers.2.*", ERROR)


# Stacked experts against the weights that they were made from -------------------------------------------

STACK = "model.layers.0.mlp.experts.gate_up_proj"


def stacked():
    """Experts as 3-D tensors, codes and scales."""
    c = build("qwen3moe", "block")
    stack_experts(c, None)
    return c


def stacked_reference(c, folder):  # noqa: F811
    """The BF16 checkpoint with its experts as 3-D tensors."""
    c.write_reference(folder)
    values, experts = dict(c.reference), c.config["num_experts"]
    for layer in range(2):
        at = f"model.layers.{layer}.mlp.experts."
        part = {p: [values.pop(f"{at}{e}.{p}_proj.weight") for e in range(experts)]
                for p in ("gate", "up", "down")}
        values[at + "gate_up_proj"] = numpy.stack(
            [numpy.concatenate(pair) for pair in zip(part["gate"], part["up"])])
        values[at + "down_proj"] = numpy.stack(part["down"])
    write_safetensors(folder / "model.safetensors", {n: ("BF16", a) for n, a in values.items()})
    return folder


@pytest.mark.parametrize("reference", ["one by one", "stacked"])
def test_each_expert_of_a_stack_is_compared(reference, folder, tmp_path):  # noqa: F811
    c = stacked()
    at = tmp_path / "reference"
    source = stacked_reference(c, at) if reference == "stacked" else c.write_reference(at)
    _, root = verify(c.write(folder), "--reference", source)
    assert not [f for f in root["findings"] if f["check"] in ("round_trip", "sqnr")]
    # 2 layers of 4 experts with 2 matrices, and 4 projections of attention.
    assert root["reference"]["quantized"] == root["reference"]["recipe_matrices"] == 2 * (4 * 2 + 4)
    assert root["reference"]["not_compared"] == 0
    assert "slime-offline-cpu" in root["reference"]["recipes"]

    dtype, codes = c.tensors[STACK]
    changed = codes.copy()
    changed[2, 300, 7] ^= 0x80
    c.tensors[STACK] = (dtype, changed)
    _, root = verify(c.write(folder), "--reference", source)
    finding, = [f for f in named(root["findings"], STACK) if f["check"] == "round_trip"]
    assert finding["severity"] == "error" and finding["index"] == [2, 300, 7]
    assert root["reference"]["recipes"] == []


def test_two_experts_of_a_stack_exchanged_are_found(folder, tmp_path):  # noqa: F811
    """Codes and scales belong together, but not to this expert."""
    c = stacked()
    for name in (STACK, STACK + "_scale_inv"):
        dtype, array = c.tensors[name]
        c.tensors[name] = (dtype, array[[1, 0, 2, 3]])
    _, root = verify(c.write(folder), "--reference", c.write_reference(tmp_path / "reference"))
    found = [f for f in named(root["findings"], STACK, ERROR) if f["check"] == "round_trip"]
    assert {f["index"][0] for f in found} == {0, 1}


def test_unquantized_experts_of_a_stack_are_compared_with_single_ones(folder, tmp_path):  # noqa: F811
    c = build("qwen3moe", "block")
    source = c.write_reference(tmp_path / "single")
    for name, (dtype, _) in list(c.tensors.items()):
        if dtype != "BF16":
            del c.tensors[name]
    c.tensors |= {name: ("BF16", a) for name, a in c.reference.items()}
    del c.config["quantization_config"]
    stacked_reference(c, folder)
    _, root = verify(folder, "--reference", source)
    assert root["reference"]["not_compared"] == 0
    assert not [f for f in root["findings"] if f["check"] == "round_trip"]


# Recipes beyond the first elements ---------------------------------------------------------------------

@pytest.mark.slow
def test_a_recipe_that_differs_in_the_last_matrix_is_not_named(folder, tmp_path):  # noqa: F811
    """44 million elements, and one code moved to the other nearest value in the last of them."""
    from fp8_checkpoints import is_quantized, shapes_of, config_of
    config = config_of("llama") | {"hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 256,
                                   "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64,
                                   "num_hidden_layers": 3}
    random = numpy.random.default_rng(5)
    values = {n: bf16(random.normal(0, 0.02, s)) for n, s in shapes_of(config).items()}
    last = "model.layers.2.self_attn.v_proj.weight"
    for changed in (False, True):
        tensors = {}
        for name, patterns in values.items():
            if not is_quantized(name):
                tensors[name] = ("BF16", patterns)
                continue
            codes, scales = quantized(f32_of_bf16(patterns))
            if changed and name == last:
                codes = codes.copy()
                codes[-1, -1] ^= 1
            tensors |= {name: ("F8_E4M3", codes), name + "_scale_inv": ("F32", scales)}
        c = build("llama", "block")
        c.config = config | {"quantization_config": c.quantization}
        c.tensors, c.reference = tensors, values
        _, root = verify(c.write(folder), "--reference", c.write_reference(tmp_path / "reference"))
        assert root["reference"]["recipe_matrices"] == 21
        assert ("slime-offline-cpu" in root["reference"]["recipes"]) != changed


def test_the_text_says_which_matrices_recipes_were_tried_on(folder, references, tmp_path):  # noqa: F811
    c = build("llama", "block")
    c.write(folder)
    done = spoken(folder, "--reference", references("llama", "block"))
    assert "codes and scales of all 14 matrices: " in done.stdout
    reference = tmp_path / "mixed"
    c.write_reference(reference)
    tensors = {name: ("BF16", a) for name, a in c.reference.items()}
    tensors[DOWN + ".weight"] = ("F32", f32_of_bf16(c.reference[DOWN + ".weight"]))
    write_safetensors(reference / "model.safetensors", tensors)
    done = spoken(folder, "--reference", reference)
    assert "of 13 of 14 matrices (the others' reference is not BF16" in done.stdout


def test_tensors_that_are_no_numbers_of_a_model_are_compared_as_they_are(folder, tmp_path):  # noqa: F811
    """Old checkpoints have positions in I64 beside the weights, quantized or not."""
    c = build("llama", "block")
    name = "model.embed_positions.position_ids"
    for changed in (False, True):
        c.tensors[name] = ("I64", numpy.arange(16) + changed)
        c.write(folder)
        reference = c.write_reference(tmp_path / "reference")
        tensors = {n: ("BF16", a) for n, a in c.reference.items()} | {name: ("I64", numpy.arange(16))}
        write_safetensors(reference / "model.safetensors", tensors)
        code, root = verify(folder, "--engine", "transformers-fp8", "--reference", reference)
        assert code == 0 and bool([f for f in named(root["findings"], name)
                                   if f["check"] == "round_trip"]) == changed


# Files ---------------------------------------------------------------------------------------------------

def test_shards_without_an_index_are_read_with_a_warning(folder):  # noqa: F811
    """vLLM and SGLang read every file of the directory."""
    build_faulty("llama", "block", "shards").write(folder)
    (folder / "model.safetensors.index.json").unlink()
    code, root = verify(folder, "--engine", "vllm-fp8")
    assert code == 0 and root["files"] == 2
    finding, = root["findings"]
    assert finding["tensor"] == "model.safetensors.index.json" and finding["severity"] == "warning"
    for engine in ("transformers-fp8", "strict"):
        code, root = verify(folder, "--engine", engine)
        assert code == 1 and named(root["findings"], "model.safetensors.index.json", ERROR)
    (folder / "model-00001-of-00002.safetensors").rename(folder / "model-00001-of-00003.safetensors")
    assert spoken(folder).returncode == 3


@pytest.mark.parametrize("equal", [True, False])
def test_a_tensor_in_two_shards_is_a_fault_only_where_they_differ(equal, folder):  # noqa: F811
    c = build_faulty("llama", "block", "shards")
    c.write(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    other, = {f for f in index["weight_map"].values()} - {index["weight_map"][O + ".weight"]}
    tensors = {n: c.tensors[n] for n, f in index["weight_map"].items() if f == other}
    dtype, array = c.tensors[O + ".weight"]
    tensors[O + ".weight"] = (dtype, array if equal else numpy.roll(array, 1))
    write_safetensors(folder / other, tensors)
    code, root = verify(folder, "--engine", "vllm-fp8")
    finding, = named(root["findings"], O + ".weight")
    assert (code, finding["severity"]) == ((0, "warning") if equal else (1, "error"))


def test_empty_tensors_break_nothing(folder):  # noqa: F811
    """A surplus one is a name as any other; a weight without rows is too short."""
    c = build("qw", "block")
    c.tensors["model.empty"] = ("F32", numpy.zeros((0, 4), numpy.float32))
    assert verify(c.write(folder), "--engine", "transformers-fp8")[0] == 0
    c.tensors[O + ".weight"] = ("F8_E4M3", numpy.zeros((0, 512), numpy.uint8))
    c.tensors[c.scale_name(O)] = ("F32", numpy.zeros((0, 4), numpy.float32))
    for engine in ("vllm-fp8", "sglang-fp8", "transformers-fp8", "strict"):
        code, root = verify(c.write(folder), "--engine", engine)
        assert code == 1 and named(root["findings"], O + "*", ERROR)


# The strict profile ----------------------------------------------------------------------------------------

MEMBERS = {"block": ["vllm-fp8", "sglang-fp8", "transformers-fp8"],
           "channel": ["vllm-compressed-tensors", "sglang-compressed-tensors", "trtllm-fp8"],
           "ct-block": ["vllm-compressed-tensors", "sglang-compressed-tensors"],
           "ct-tensor": ["vllm-compressed-tensors", "sglang-compressed-tensors"]}
STRICT = [(fault, scheme, model) for fault in FAULTS for scheme in MEMBERS
          for model in ("qw", "qwen3", "qwen2", "qwen3moe", "dsv3-aligned")
          if applies(fault, model, scheme) and not FAULTS[fault][2]]
# Of scales in half precision every engine makes F32, and each engine is at peace with one of two
# heads; the profile alone wants F32 and one head.
STRICTER = {"scale bf16", "scale f16", "head tied different"}


def _strict_is_all(fault, scheme, model, folder):  # noqa: F811
    own = fault in ("unexpected bias", "unknown projection")
    stand_in = None if own else STAND_INS.get(family_of(model)[0], {}).get(FAULTS[fault][1])
    build_faulty(model, scheme, fault, stand_in).write(folder)
    engines = [e for e in MEMBERS[scheme] if e != "trtllm-fp8" or model in ("qw", "qwen3", "qwen2")]
    codes = {engine: verify(folder, "--engine", engine)[0] for engine in engines}
    code, root = verify(folder, "--engine", "strict")
    said = f"{codes}\n" + "\n".join(f["message"] for f in root["findings"])
    if any(codes.values()):
        assert code == 1, said
    elif fault not in STRICTER and code == 1:
        # Only what some engine drops with a warning may be an error of the profile.
        assert all(f["check"] == "names" for f in root["findings"] if f["severity"] == "error"), said


@pytest.mark.parametrize("fault, scheme, model", STRICT[::9])
def test_strict_fails_wherever_an_engine_does(fault, scheme, model, folder):  # noqa: F811
    _strict_is_all(fault, scheme, model, folder)


@pytest.mark.slow
@pytest.mark.parametrize("fault, scheme, model", STRICT)
def test_strict_fails_wherever_an_engine_does_with_every_fault(fault, scheme, model, folder):  # noqa: F811
    _strict_is_all(fault, scheme, model, folder)


@pytest.mark.parametrize("entries, passes", [
    ([Q, K, V], False), (["re:.*self_attn.*"], True), (["model.layers.0.self_attn.qkv_proj"], True)])
def test_strict_follows_every_engine_through_the_ignore_list(entries, passes, folder):  # noqa: F811
    """SGLang knows the fused layer and patterns on it, but not its parts; vLLM knows all of them."""
    c = build("qwen3", "channel")
    for module in [m for m in c.modules() if ".self_attn." in m]:
        if module in (Q, K, V) or "re:.*self_attn.*" in entries:
            c.skip(module)
    c.quantization["ignore"] = ["lm_head", *entries]
    c.write(folder)
    assert verify(folder, "--engine", "vllm-compressed-tensors")[0] == 0
    code, root = verify(folder, "--engine", "strict")
    assert code == (0 if passes else 1), [f["message"] for f in root["findings"]]
    if not passes:
        assert "sglang-compressed-tensors" in named(root["findings"], Q + ".weight", ERROR)[0]["message"]


def test_a_reference_with_a_tensor_in_two_files_is_no_reference(folder, tmp_path):  # noqa: F811
    """Nothing says which of the two the checkpoint was made from."""
    build("llama", "block").write(folder)
    c = build_faulty("llama", "block", "shards")
    reference = c.write_reference(tmp_path / "reference")
    (reference / "model.safetensors").rename(reference / "model-00001-of-00002.safetensors")
    write_safetensors(reference / "model-00002-of-00002.safetensors",
                      {O + ".weight": ("BF16", c.reference[O + ".weight"])})
    done = spoken(folder, "--reference", reference)
    assert done.returncode == 3 and O in done.stderr and "also in" in done.stderr


def test_the_name_that_deepseeks_own_code_gives_scales_is_known(folder):  # noqa: F811
    """transformers renames it while it loads; the others do not."""
    c = build("qw", "block")
    c.tensors[DOWN + ".scale"] = c.tensors.pop(c.scale_name(DOWN))
    c.write(folder)
    assert verify(folder, "--engine", "transformers-fp8")[0] == 0
    for engine in ("vllm-fp8", "sglang-fp8", "strict"):
        code, root = verify(folder, "--engine", engine)
        assert code == 1 and DOWN + ".weight_scale_inv" in named(root["findings"], DOWN + ".scale",
                                                                 ERROR)[0]["remedy"]
