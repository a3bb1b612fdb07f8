# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""`refitbench verify` against what real loaders made of right and wrong checkpoints."""

import json
import shutil
import subprocess

import pytest
from fp8_checkpoints import build
from loader_verdicts import cases, named
from user_program import PROGRAM

CASES = cases()


def verify(folder, *arguments):
    """(exit code, JSON) of one call."""
    done = subprocess.run([PROGRAM, "verify", folder, "--json", "-", *map(str, arguments)],
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, f"nothing on standard output, exit code {done.returncode}: {done.stderr}"
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path):
    """A folder that does not outlive its test: there are many."""
    yield tmp_path / "checkpoint"
    shutil.rmtree(tmp_path / "checkpoint", ignore_errors=True)


@pytest.fixture(scope="session")
def references(tmp_path_factory):
    """The BF16 checkpoint of a model, written once."""
    written = {}

    def of(model, scheme):
        if model not in written:
            written[model] = build(model, scheme).write_reference(tmp_path_factory.mktemp("bf16"))
        return written[model]
    return of


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_verdict_is_what_the_loader_did(case, folder, references):
    """Always with the BF16 weights; without them where the checkpoint shows the fault by itself."""
    case.build().write(folder)
    with_reference = ["--reference", references(case.model, case.scheme)]
    for extra in ([with_reference] if case.needs_reference else [[], with_reference]):
        code, root = verify(folder, "--engine", case.engine, "--tp", case.tp, *extra)
        said = f"{case}: {case.loader}\n" + "\n".join(f["message"] for f in root["findings"])
        assert code in (0, 1), said
        assert root["verdict"] == ("pass" if code == 0 else "fail"), said
        if case.verdict == "pass":
            assert code == 0, said
        elif case.verdict == "fail":
            assert code == 1 and named(root["findings"], case.tensors, ("error",)), said
        elif case.verdict == "flag":
            assert named(root["findings"], case.tensors), said


def test_the_table_has_every_kind_of_verdict_for_every_engine_that_it_names():
    """A table that lost rows would pass everything above."""
    assert len(CASES) == 153
    for engine in {case.engine for case in CASES}:
        assert {"pass", "fail"} <= {case.verdict for case in CASES if case.engine == engine}
