# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The loaded bits do not depend on how the trainers cut the tensors.

The digest of a tensor in the record is that of its bytes in the receivers' memory, put together in
global order. It must be the XXH3-128 of the codes that `quantize` writes for the whole tensor (of the
BF16 bytes for a tensor that travels as it is), whatever the number of trainers and their shards.
"""

import json

import pytest
from checkpoints import checkpoint_run, llama_config, read_safetensors, write_checkpoint, xxh3_128
from user_program import Refitbench, text_of

# Neither side of any matrix but the fused rows is a multiple of a scaling tile.
CONFIG = llama_config(hidden=257, heads=4, ffn=256, layers=1, vocabulary=200)
ENGINES = {"fp8_blockwise": "vllm-fp8", "fp8_channelwise": "vllm-compressed-tensors",
           "fp8_tensorwise": "vllm-compressed-tensors"}


def case_of(recipe):
    """The keys of a case that sends by a recipe to an engine that takes it."""
    keys = {"payload.scheme": recipe["scheme"], "payload.recipe": recipe["name"],
            "receiver.engine": ENGINES[recipe["scheme"]]}
    if recipe["scheme"] == "fp8_channelwise" and recipe["scale_rank"] == 1:
        keys |= {"receiver.engine": "vllm-modelopt", "receiver.algo": "FP8_PER_CHANNEL_PER_TOKEN"}
    return keys


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """Checkpoint folder, recipes, and {recipe: {tensor: digest of its codes}} of `quantize`."""
    refitbench = Refitbench(tmp_path_factory.mktemp("quantized"))
    folder = refitbench.folder / "checkpoint"
    raw = {name: xxh3_128(patterns.tobytes())
           for name, patterns in write_checkpoint(folder, CONFIG).items()}
    recipes = refitbench("list", "recipes", "--json", "-").expect(0).json["rows"]
    recipes = [recipe for recipe in recipes if recipe["scheme"] in ENGINES]
    codes = {}
    for recipe in recipes:
        output = refitbench.folder / "codes.safetensors"
        refitbench("quantize", "--recipe", recipe["name"], "--input", folder / "model.safetensors",
                   "--output", output).expect(0)
        codes[recipe["name"]] = {name: xxh3_128(content) for name, (dtype, _, content) in
                                 read_safetensors(output).items() if dtype == "F8_E4M3"}
    return folder, recipes, raw, codes


SHARDS = {
    "one trainer": (1, ""),
    "two trainers": (2, ""),
    "three trainers": (3, ""),
    "tile-cutting shards": (2, ", shard_multiple: 1, shares: [3, 1]"),
}


@pytest.mark.parametrize("shards", SHARDS)
def test_every_recipe_gives_the_codes_of_the_whole_tensor(refitbench, quantized, shards):
    folder, recipes, raw, codes = quantized
    trainers, keys = SHARDS[shards]
    text = checkpoint_run(folder, trainers, transport="mpi").replace(
        f"ranks: {trainers}", f"ranks: {trainers}{keys}")
    # Whether the bits are good ones is asked by other tests; here they only have to be the same.
    text += "checks: [completeness, digest, byte_identity]\n"
    cases = [{"payload.scheme": "bf16", "receiver.engine": "vllm-bf16"}, *map(case_of, recipes)]

    outcome = refitbench.run(text + f"cases: {json.dumps(cases)}\n", np=trainers + 1)

    outcome.expect(0)
    assert len(outcome.json["cases"]) == len(cases)
    with refitbench.record(outcome) as record:
        for case in record["cases"].values():
            recipe = text_of(case.attrs["recipe"])
            quantized_here = set()
            for row in case["tensors"]:
                name = text_of(row["name"])
                expected = raw[name]
                if text_of(row["recipe"]):
                    quantized_here.add(name)
                    expected = codes[recipe][name]
                assert text_of(row["digest"]) == expected, f"{recipe}: {name}"
            # Seven matrices of the one layer; embeddings and norms travel as they are.
            assert len(quantized_here) == (7 if recipe else 0)


def test_every_recipe_passes_all_checks(refitbench, quantized):
    folder, recipes, _, _ = quantized
    cases = [case_of(recipe) for recipe in recipes]

    outcome = refitbench.run(checkpoint_run(folder) + f"cases: {json.dumps(cases)}\n")

    wrong = {case["recipe"]: sorted({finding["check"] for finding in case["findings"]})
             for case in outcome.json["cases"] if case["outcome"] != "pass"}
    assert wrong == {}, outcome


def test_the_digests_differ_where_the_values_do(refitbench, quantized):
    folder, _, raw, _ = quantized
    other = refitbench.folder / "other"
    write_checkpoint(other, CONFIG, seed=8)

    outcome = refitbench.run(checkpoint_run(other)).expect(0)

    with refitbench.record(outcome) as record:
        digests = {text_of(row["name"]): text_of(row["digest"])
                   for row in record["cases/000/tensors"]}
    assert digests["lm_head.weight"] != raw["lm_head.weight"]
    assert len(set(digests.values())) == len(digests)
