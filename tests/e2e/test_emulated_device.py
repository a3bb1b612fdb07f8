# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""backend: cuda in whole runs, over a CUDA device that the host plays (tests/support/emulated_cuda.hpp)."""

import json
import os
import subprocess

import h5py
import numpy as np
import pytest
from user_program import BUILD, MPIRUN, REPOSITORY

_DRIVER = BUILD / "tests" / "librefit_fake_device.so"
_PROGRAM = BUILD / "tests" / "device" / "refitbench_emulated_device"


def _run(tmp_path, backend, *settings, scenario="smoke/mpi.yaml", ranks=4, devices=2, name=None,
         fault=None, plan=None):
    """A scenario, one iteration: exit code, its JSON, its record, its words."""
    for built in (_PROGRAM, _DRIVER):
        if not built.exists():
            pytest.skip(f"{built} was not built: there is no nvcc, or it was left out")
    # The kernels' runtime plays one device; with a second one in the driver's list, transports use both.
    environment = dict(os.environ, REFIT_CUDA_LIBRARY=str(_DRIVER), REFIT_NCCL_LIBRARY=str(_DRIVER),
                       REFIT_FAKE_DEVICES=str(devices))
    if fault is not None:
        environment["REFIT_EMULATED_FAULT"] = fault
    if plan is not None:
        environment["REFIT_FAKE_NCCL"] = plan
    folder = tmp_path / (name or backend)
    folder.mkdir()
    command = [*MPIRUN, "-np", str(ranks), str(_PROGRAM), "run",
               str(REPOSITORY / "scenarios" / scenario), "--output", str(folder),
               "--json", str(folder / "run.json"), "-n", "1", "-w", "0", "--set", f"backend={backend}"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120,
                          check=False)
    report = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return done.returncode, report, next(folder.glob("*.h5")), done.stdout + done.stderr


def _notes(file, number):
    return {key: value.decode() if isinstance(value, bytes) else str(value)
            for key, value in file[f"cases/{number:03d}/notes"].attrs.items()}


def _tensors(path, number=0):
    """Digest and error counts of every tensor, by name."""
    with h5py.File(path) as file:
        rows = file[f"cases/{number:03d}/tensors"][()]
    fields = [f for f in rows.dtype.names if f == "digest" or rows.dtype[f].kind in "iu"]
    return {row["name"]: tuple(row[f] for f in fields) for row in rows}


def test_a_refit_passes_and_staging_is_a_stage_that_the_cpu_does_not_have(tmp_path):
    # The sweep chooses among the MPI transports; this one lies between device memories.
    code, report, path, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc")
    assert code == 0, text
    with h5py.File(path) as file:
        for number, case in enumerate(report["cases"]):
            assert case["outcome"] == "pass" and case["backend"] == "cuda"
            assert case["stages"]["staging"]["median_s"] > 0
            assert "a rank's pieces lie on device 1" in _notes(file, number)["device_resident"]
            samples = {name: values[()] for name, values in file[f"cases/{number:03d}/samples"].items()}
            # Trainers stage, receivers do not; and no time is in two stages of a trainer.
            assert (samples["staging"][:, :2] > 0).all()
            assert np.isnan(samples["staging"][:, 2:]).all()
            parts = sum(samples[stage][:, :2] for stage in ("gather", "quantize", "staging", "pack"))
            assert (parts <= samples["wall"][:, :2]).all()
    code, report, path, text = _run(tmp_path, "auto")
    assert code == 0, text
    assert all("staging" not in case["stages"] for case in report["cases"])
    with h5py.File(path) as file:
        assert "staging" not in file["cases/000/samples"]


@pytest.mark.parametrize("transport", ["cuda_ipc", "nccl"])
def test_a_resident_refit_loads_the_hosts_bytes_and_stages_none_of_them(tmp_path, transport):
    settings = ["warmup=1", "payload.recipe=prime-rl-blockwise"]
    code, report, path, text = _run(tmp_path, "cuda", f"transport.name={transport}", *settings, devices=1)
    assert code == 0, text
    assert "staged through the host" not in text
    host_code, _, host_path, host_text = _run(tmp_path, "portable", *settings)
    assert host_code == 0, host_text
    with h5py.File(path) as file:
        notes = _notes(file, 0)
        samples = file["cases/000/samples"]
        # A stage that is there, of trainers, in which nothing was done.
        assert (samples["staging"][()][:, :2] == 0).all()
        assert (samples["quantize"][()][:, :2] > 0).all()
    assert notes["device_resident"] == "true"
    assert notes["device_staged_bytes"] == "0"
    assert 0 < int(notes["device_control_bytes"]) < report["cases"][0]["bytes_wire"] // 50
    digests = _tensors(path)
    assert digests == _tensors(host_path) and len(digests) == report["cases"][0]["tensors"]


@pytest.mark.parametrize("settings", [
    ["receiver.commit=in_place", "refits=2"],
    pytest.param(["payload.scheme=bf16", "receiver.engine=vllm-bf16"], marks=pytest.mark.slow),
    # One tile a tensor, which two trainers share.
    ["payload.scheme=fp8_tensorwise", "receiver.engine=vllm-compressed-tensors"],
])
def test_other_refits_stay_on_the_device_too(tmp_path, settings):
    common = {"scenario": "faults/source_write.yaml"}
    settings = [*settings, "faults=[]", "expect={outcome: pass}"]
    code, _, path, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc", *settings, devices=1, **common)
    assert code == 0, text
    host_code, _, host_path, host_text = _run(tmp_path, "portable", *settings, **common)
    assert host_code == 0, host_text
    with h5py.File(path) as file:
        notes = _notes(file, 0)
    assert (notes["device_resident"], notes["device_staged_bytes"]) == ("true", "0")
    assert _tensors(path) == _tensors(host_path)


def _same_on_host_and_device(tmp_path, *settings, **common):
    """Cases, settings applied, that stay on the device and end as they do on the host; those of the device."""
    code, report, path, text = _run(tmp_path, "cuda", *settings, devices=1, **common)
    assert code == 0, text
    host_code, host_report, host_path, host_text = _run(tmp_path, "portable", *settings, **common)
    assert host_code == 0, host_text
    with h5py.File(path) as file:
        for number, (case, host) in enumerate(zip(report["cases"], host_report["cases"], strict=True)):
            notes = _notes(file, number)
            # A case that its plan refuses never comes to a refit.
            if "device_resident" in notes or case["outcome"] == "pass":
                assert (notes["device_resident"], notes["device_staged_bytes"]) == ("true", "0"), text
            assert case["outcome"] == host["outcome"] and case["findings"] == host["findings"]
            assert case["bytes_wire"] == host["bytes_wire"]
            assert _tensors(path, number) == _tensors(host_path, number)
    return report["cases"]


def test_the_engines_own_parameters_are_cut_and_joined_on_the_device(tmp_path):
    # Among them those that latent attention derives its matrices from.
    cases = _same_on_host_and_device(tmp_path, "transport.name=cuda_ipc",
                                     scenario="contracts/kernel-tp.yaml", ranks=3)
    assert {case["outcome"] for case in cases} == {"pass"}


def test_every_framing_is_laid_out_on_the_device_and_latent_attention_derived_there(tmp_path):
    cases = _same_on_host_and_device(tmp_path, "transport.name=cuda_ipc",
                                     scenario="contracts/framing-as-wanted.yaml", ranks=3)
    assert len(cases) == 5 and {case["outcome"] for case in cases} == {"pass"}


_PLANTS = ("weights.plant=[{tensor: '*.0.mlp.up_proj.weight', kind: nan, where: {count: 3}},"
           "{tensor: '*.1.self_attn.o_proj.weight', kind: inf, where: {row: 3, col: 400}},"
           "{tensor: '*.1.input_layernorm.weight', kind: inf, where: {row: 7}}]")


@pytest.mark.parametrize("recipe", [
    "slime-online",  # which hides NaN in its amax
    pytest.param("prime-rl-blockwise", marks=pytest.mark.slow)])
def test_nan_and_inf_meet_every_policy_on_the_device_as_on_the_host(tmp_path, recipe):
    cases = _same_on_host_and_device(
        tmp_path, "transport.name=cuda_ipc", f"payload.recipe={recipe}", _PLANTS,
        "sweep={nonfinite: [sanitize, propagate, recipe]}", "expect={outcome: finding, check: nonfinite}")
    assert [case["outcome"] for case in cases] == ["expected_finding"] * 3
    # Receivers refuse the scales of tiles that held NaN or Inf; with `sanitize` there are none.
    assert [any("_scale_inv" in one["tensor"] for one in case["findings"]) for case in cases[:2]] == [
        False, True]


def _cut_between_columns(tmp_path):
    """A model whose down projection has 576 columns a trainer: four tiles and a half."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 1152, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 512,
        "tie_word_embeddings": False}), encoding="utf-8")
    return [f"model={{config: {config}}}", "trainer.layout=tp", "receiver.tp=1"]


def test_shards_that_cut_tiles_between_columns_stay_on_the_device(tmp_path):
    cases = _same_on_host_and_device(
        tmp_path, "transport.name=cuda_ipc", *_cut_between_columns(tmp_path),
        "sweep={payload.recipe: [nemo-rl-linear, tensorwise]}",
        "receiver.engine=strict", ranks=3)
    assert {case["outcome"] for case in cases} == {"pass"}


def test_a_doubled_scale_is_found_where_columns_are_cut(tmp_path):
    cases = _same_on_host_and_device(
        tmp_path, "transport.name=cuda_ipc", *_cut_between_columns(tmp_path),
        "faults=[{name: scale_doubled, tensor: '*.1.mlp.down_proj.weight'}]", "sweep={}",
        "expect={outcome: finding, check: round_trip, tensor: '*.1.mlp.down_proj.weight'}", ranks=3)
    assert cases[0]["outcome"] == "expected_finding"


def test_scales_of_the_kv_cache_stay_on_the_device(tmp_path):
    cases = _same_on_host_and_device(
        tmp_path, "transport.name=cuda_ipc", "payload.kv_cache_scales=kv", "receiver.reload=layerwise",
        "sweep={}", "refits=2")
    assert cases[0]["outcome"] == "pass"


@pytest.mark.slow
@pytest.mark.parametrize("scenario, ranks", [("kv-cache-scales", 3), ("kv-cache-scales-faults", 3),
                                             ("framing-damage", 3)])
def test_contracts_with_cache_scales_and_framings_end_alike(tmp_path, scenario, ranks):
    _same_on_host_and_device(tmp_path, "transport.name=cuda_ipc", scenario=f"contracts/{scenario}.yaml",
                             ranks=ranks)


@pytest.mark.parametrize("fault", [
    "flip_byte", "skip_load", "source_write", "stale_derived",
    *(pytest.param(name, marks=pytest.mark.slow)
      for name in ("replica_flip", "truncate", "scale_doubled", "swap_tensors"))])
def test_planted_faults_are_found_in_refits_on_the_device(tmp_path, fault):
    code, report, path, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc",
                                    scenario=f"faults/{fault}.yaml", devices=1)
    assert code == 0, text
    assert report["cases"][0]["outcome"] == "expected_finding"
    with h5py.File(path) as file:
        assert _notes(file, 0)["device_resident"] == "true"


@pytest.mark.parametrize("rank, kernel, launch", [
    (1, "quantize", 3),   # a trainer, in the middle of its first refit
    (2, "place", 5),     # a receiver, while it writes
    pytest.param(0, "digests", 8, marks=pytest.mark.slow),   # a trainer, in its last bucket
    pytest.param(3, "set_words", 0, marks=pytest.mark.slow),  # a receiver, before the first
])
def test_a_lost_device_fails_its_case_and_later_ones_are_skipped_with_the_reason(
        tmp_path, rank, kernel, launch):
    code, report, path, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc", "warmup=1",
                                    "sweep={receiver.commit: [staged, in_place]}", devices=1,
                                    fault=f"{rank} {kernel} {launch}")
    assert code == 3, text
    lost, later = report["cases"]
    assert lost["outcome"] == "error"
    assert f"rank {rank}: CUDA backend" in text and "illegal memory access" in text
    assert "start the run again" in text
    if kernel != "set_words":  # which strikes before there is a refit
        found = [finding for finding in lost["findings"] if finding["severity"] == "error"]
        assert [finding["rank"] for finding in found] == [rank], text
        assert "start the run again" in found[0]["message"]
    assert later["outcome"] == "skipped"
    assert f"rank {rank}: backend cuda: the CUDA device was lost" in later["skip_reason"]
    with h5py.File(path) as file:
        assert len(file["cases"]) == 2


def test_a_device_lost_while_matrices_are_derived_fails_its_case(tmp_path):
    # After all ranks agreed to commit: the others did.
    code, report, _, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc", "model=tiny-mla", "sweep={}",
                                 devices=1, ranks=4, fault="3 derive 2")
    assert code == 3, text
    assert report["cases"][0]["outcome"] == "error"
    found = [finding for finding in report["cases"][0]["findings"] if finding["check"] == "device"]
    assert [finding["rank"] for finding in found] == [3], text
    assert "rank 3: CUDA backend" in text and "illegal memory access" in text


@pytest.mark.parametrize("transport", ["cuda_ipc", "nccl"])
def test_no_rank_waits_for_one_whose_device_does_not_work(tmp_path, transport):
    code, report, _, text = _run(tmp_path, "auto", f"transport.name={transport}", "timeout_s=100",
                                 "sweep={receiver.commit: [staged]}", devices=1, plan="no_stream_1")
    assert code == 3, text
    assert [case["outcome"] for case in report["cases"]] == ["error"]
    assert "rank 1: cuStreamCreate failed: invalid device context" in text


def test_a_device_that_works_until_the_end_is_no_finding(tmp_path):
    # The fault is planted behind the last launch.
    code, report, _, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc",
                                 "sweep={receiver.commit: [staged]}", devices=1, fault="0 place 1000000")
    assert code == 0, text
    assert [case["outcome"] for case in report["cases"]] == ["pass"]


@pytest.mark.parametrize("setting, reason", [
    ("transport.name=mpi", "transport mpi carries host memory"),
    pytest.param("weights.resident=false", "weights.resident is false", marks=pytest.mark.slow),
])
def test_a_refit_that_cannot_stay_on_the_device_is_staged_and_says_why(tmp_path, setting, reason):
    settings = ["transport.name=cuda_ipc", "payload.recipe=prime-rl-blockwise", setting]
    code, report, path, text = _run(tmp_path, "cuda", *settings, devices=1)
    assert code == 0, text
    assert f"# staged through the host: false ({reason}" in " ".join(text.split())
    assert report["cases"][0]["stages"]["staging"]["median_s"] > 0
    with h5py.File(path) as file:
        notes = _notes(file, 0)
    assert reason in notes["device_resident"] and "device_staged_bytes" not in notes
