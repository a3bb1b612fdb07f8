# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Models whose sides no tile divides pass in every scheme that can hold them."""

import json

import pytest
from checkpoints import checkpoint_run, llama_config, llama_shapes, write_checkpoint

CHANNELWISE = [{"receiver.engine": "vllm-compressed-tensors", "payload.scheme": "fp8_channelwise"},
               {"receiver.engine": "vllm-modelopt", "payload.scheme": "fp8_channelwise"}]
CASES = {
    1: [{"receiver.engine": "vllm-fp8", "payload.scheme": "fp8_blockwise"}, *CHANNELWISE,
        {"receiver.engine": "vllm-fp8", "payload.scheme": "fp8_tensorwise"},
        {"receiver.engine": "vllm-compressed-tensors", "payload.scheme": "fp8_tensorwise"}],
    2: [{"receiver.engine": "vllm-fp8", "payload.scheme": "fp8_blockwise"}, *CHANNELWISE],
}


@pytest.mark.parametrize("tp, trainers", [(1, 2), (2, 2)])
@pytest.mark.parametrize("hidden", [1, 127, 128, 129, 255, 257])
def test_a_ragged_model_passes(refitbench, hidden, tp, trainers):
    config = llama_config(hidden=hidden, heads=4, kv_heads=4, ffn=256, layers=1, vocabulary=256)
    folder = refitbench.folder / "checkpoint"
    write_checkpoint(folder, config)
    text = checkpoint_run(folder, trainers, transport="mpi",
                          extra=f"receiver: {{engine: vllm-fp8, tp: {tp}}}\n"
                                f"cases: {json.dumps(CASES[tp])}\n")

    cases = refitbench.run(text, np=trainers + tp).expect(0).json["cases"]

    assert [case["outcome"] for case in cases] == ["pass"] * len(CASES[tp])
    assert {case["tensors"] for case in cases} == {len(llama_shapes(config))}
