# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""A rank is killed, stopped or interrupted from outside in mid-refit; the record must say so."""

import os
import signal
import time

import pytest
from user_program import small_run, text_of

TIMEOUT_S = 3


def start_endless_run(refitbench):
    """A run of 4 ranks that would last hours, and its ranks, some refits after its start.

    The paced link keeps every refit in the middle for most of its time.
    """
    text = small_run(2, 2).replace("iterations: 1", "iterations: 100000").replace(
        "timeout_s: 20", f"timeout_s: {TIMEOUT_S}")
    text = text.replace("bucket_bytes: 256KiB", "bucket_bytes: 64KiB, link_bytes_per_s: 4MiB")
    path = refitbench.write("endless.yaml", text)
    process = refitbench.start("run", path, "--output", refitbench.records, np=4)
    ranks = refitbench.ranks_of(process, 4)
    # Joining the world and measuring the memory's ceiling come before the first refit.
    time.sleep(2.5)
    if process.poll() is not None:
        pytest.fail(f"the run ended by itself{refitbench.finish(process, 0.1)}")
    return process, ranks


@pytest.mark.parametrize("rank", range(4))
def test_a_killed_rank_leaves_a_record_that_names_it(refitbench, rank):
    process, ranks = start_endless_run(refitbench)

    os.kill(ranks[rank], signal.SIGKILL)
    outcome = refitbench.finish(process, TIMEOUT_S + 5)

    outcome.expect(137, 3)
    with refitbench.record(outcome) as record:
        assert text_of(record.attrs["verdict"]) == "error"
        assert int(record.attrs["error_rank"]) == rank, text_of(record.attrs["error_message"])
        assert text_of(record.attrs["error_stage"])
        assert text_of(record.attrs["error_message"])


@pytest.mark.parametrize("rank", range(4))
def test_a_stopped_rank_leaves_a_record_that_names_it(refitbench, rank):
    process, ranks = start_endless_run(refitbench)

    try:
        os.kill(ranks[rank], signal.SIGSTOP)
        outcome = refitbench.finish(process, TIMEOUT_S + 5)
    finally:
        refitbench.end_all()
        try:
            os.kill(ranks[rank], signal.SIGKILL)
        except ProcessLookupError:
            pass

    outcome.expect(137, 3)
    with refitbench.record(outcome) as record:
        assert text_of(record.attrs["verdict"]) == "error"
        assert int(record.attrs["error_rank"]) == rank, text_of(record.attrs["error_message"])
        assert text_of(record.attrs["error_stage"])


def test_an_interrupted_run_leaves_a_record_that_says_so(refitbench):
    process, _ = start_endless_run(refitbench)

    os.kill(process.pid, signal.SIGINT)
    outcome = refitbench.finish(process, TIMEOUT_S + 5)

    assert outcome.code != 0, outcome
    with refitbench.record(outcome) as record:
        assert text_of(record.attrs["verdict"]) == "error"
        assert "interrupted" in text_of(record.attrs["error_message"])
        assert text_of(record.attrs["error_stage"])
