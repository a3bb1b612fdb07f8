# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""`refitbench verify` beside the loader classes of vLLM and SGLang, taken from their wheels.

Slow. Every fault of the matrix is loaded by the engine's own model class, each rank apart, and
judged by `verify`. What raises or ends with other weights must not pass; what ends right must not
fail, unless the checkpoint is not what its configuration says and the table of
test_verify_faults.py names that.
"""

import collections
import shutil

import pytest
from checkpoint_faults import FAULTS, build_faulty
from engine_loaders import LoaderProcess, install_python, unpack_wheel
from fp8_checkpoints import MODELS, build
from test_save_pretrained import peers_python  # noqa: F401
from test_verify_faults import ENGINES, STAND_INS, expected, family_of, matrix
from test_verify_loaders import folder, references, verify  # noqa: F401

pytestmark = pytest.mark.slow

OURS = sorted(engine for engine in ENGINES if not engine.startswith("transformers"))


def rows(engine):
    """(fault, model, scheme, tp): every fault in every model at 1 rank and in each scheme's first
    model at 2, every model that is right at 1, 2 and 4.
    """
    faulty = [(fault, model, scheme, tp)
              for fault, name, model, scheme in matrix() if name == engine
              for tp in ((1, 2) if model == ENGINES[engine][scheme][0] else (1,))]
    own = "qw" if engine.startswith("sglang") else "llama"
    models = [model for model in MODELS if model.startswith(own + "-") or model == own
              or MODELS[model][0] not in ("llama", "qwen3")]
    right = [("nothing", model, scheme, tp) for scheme in ENGINES[engine] for model in models
             for tp in (1, 2, 4) if not (MODELS[model][0] == "dsv3" and scheme != "block")
             # vLLM has no kernel for its heads.
             and not (model == "dsv3-aligned" and engine.startswith("vllm"))]
    return list(dict.fromkeys(right + faulty))


def broken_module(fault, model):
    """The module that the fault breaks in that model."""
    if fault in ("unexpected bias", "unknown projection"):
        return None
    return STAND_INS.get(family_of(model)[0], {}).get(FAULTS[fault][1])


def disagreement(outcome, code, allowed):
    """What is wrong with a verdict, or None.

    `allowed`: the engine ends right with a payload that is not what its configuration says.
    """
    if outcome in ("raises", "wrong"):
        return "verify passes it" if code == 0 else None
    return "verify fails it" if code != 0 and not allowed else None


@pytest.fixture(scope="module")
def loaders(peers_python, tmp_path_factory):  # noqa: F811
    """The process of an engine, started when it is first asked for."""
    started = {}

    def of(name):
        if name not in started:
            python = install_python(peers_python)
            log = tmp_path_factory.mktemp(name) / "log"
            started[name] = LoaderProcess(name, python, unpack_wheel(name, python), log)
        return started[name]
    yield of
    for process in started.values():
        process.close()


def compared(engine, loader, folder, references):  # noqa: F811
    """({outcome: rows}, disagreements) of a whole engine."""
    counts, found = collections.Counter(), []
    for number, (fault, model, scheme, tp) in enumerate(rows(engine)):
        faulty = build_faulty(model, scheme, fault, broken_module(fault, model))
        written = faulty.write(folder / str(number))
        reference = references(model, scheme)
        outcome, said = loader.load(written, reference, tp)
        code, root = verify(written, "--engine", engine, "--tp", tp, "--reference", reference)
        shutil.rmtree(written)
        counts[outcome] += 1
        allowed = expected(fault, engine, model, scheme) in ("open", "flag")
        what = disagreement(outcome, code, allowed)
        if what:
            lines = [f"{fault}, {model}, {scheme}, tp {tp}: {what}",
                     f"{loader.version}: {outcome} {said}"]
            lines += [f"verify: {f['severity']} {f['message']}" for f in root["findings"]]
            found.append("\n  ".join(lines))
            print(found[-1], flush=True)  # The whole engine takes minutes.
    return counts, found


@pytest.mark.parametrize("engine", OURS)
def test_verify_agrees_with_the_loader_classes(engine, loaders, folder, references):  # noqa: F811
    counts, found = compared(engine, loaders(engine.split("-")[0]), folder, references)
    print(f"{engine}, {loaders(engine.split('-')[0]).version}: {dict(counts)}")
    assert counts["right"] and counts["raises"] and counts["wrong"], counts
    assert not found, f"{len(found)} of {sum(counts.values())} rows\n" + "\n".join(found)


@pytest.mark.parametrize("engine", OURS)
def test_a_verdict_for_another_checkpoint_would_disagree(engine, loaders, folder,  # noqa: F811
                                                         references):  # noqa: F811
    """The comparison itself: a right checkpoint's verdict beside what the classes made of a broken
    one.
    """
    loader = loaders(engine.split("-")[0])
    scheme, models = next(iter(ENGINES[engine].items()))
    reference = references(models[0], scheme)
    right = build(models[0], scheme).write(folder / "right")
    code, _ = verify(right, "--engine", engine, "--tp", 1)
    assert code == 0 and loader.load(right, reference, 1)[0] == "right"

    broken = build_faulty(models[0], scheme, "scale missing").write(folder / "broken")
    outcome, said = loader.load(broken, reference, 1)

    assert outcome == "wrong" and "qkv_proj" in said
    assert disagreement(outcome, code, False) == "verify passes it"
