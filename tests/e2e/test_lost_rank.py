# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""A rank is killed, stopped or interrupted from outside in mid-refit; the record must say so."""

import os
import signal
import time

import pytest
from user_program import small_run, text_of

# What lies in /dev/shm is counted, so that no other run may come and go meanwhile.
pytestmark = pytest.mark.alone

TIMEOUT_S = 3


def endless_run(trainers, tp, transport):
    """A scenario that would last hours.

    The paced link keeps every refit in the middle for most of its time.
    """
    text = small_run(trainers, tp, transport).replace("iterations: 1", "iterations: 100000").replace(
        "timeout_s: 20", f"timeout_s: {TIMEOUT_S}")
    return text.replace("bucket_bytes: 256KiB", "bucket_bytes: 64KiB, link_bytes_per_s: 4MiB")


def start_endless_run(refitbench, transport):
    """A run of 4 ranks and its ranks, some buckets after its start."""
    path = refitbench.write("endless.yaml", endless_run(2, 2, transport))
    process = refitbench.start("run", path, "--output", refitbench.records, np=4)
    ranks = refitbench.ranks_of(process, 4)
    # Joining the world and measuring the memory's ceiling come before the first refit.
    time.sleep(2.5)
    if process.poll() is not None:
        pytest.fail(f"the run ended by itself{refitbench.finish(process, 0.1)}")
    return process, ranks


def kill_if_there(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def nothing_left(refitbench, ranks):
    """No rank lives, and beside the one record there is no file."""
    for pid in ranks.values():
        assert not os.path.exists(f"/proc/{pid}/exe"), f"process {pid} is still there"
    assert [path.suffix for path in refitbench.records.iterdir()] == [".h5"]


@pytest.mark.parametrize("rank", range(4))
def test_a_killed_rank_leaves_a_record_that_names_it(refitbench, shared_memory, rank):
    process, ranks = start_endless_run(refitbench, "mpi_window")

    os.kill(ranks[rank], signal.SIGKILL)
    outcome = refitbench.finish(process, TIMEOUT_S + 5)

    outcome.expect(137, 3)
    with refitbench.record(outcome) as record:
        assert text_of(record.attrs["verdict"]) == "error"
        assert int(record.attrs["error_rank"]) == rank, text_of(record.attrs["error_message"])
        assert text_of(record.attrs["error_stage"])
        assert f"rank {rank}" in text_of(record.attrs["error_message"])
    assert f"rank {rank}" in outcome.stderr, outcome
    nothing_left(refitbench, ranks)
    assert shared_memory() == set()


@pytest.mark.parametrize("rank", range(4))
def test_a_stopped_rank_leaves_a_record_that_names_it(refitbench, shared_memory, rank):
    process, ranks = start_endless_run(refitbench, "mpi")

    try:
        os.kill(ranks[rank], signal.SIGSTOP)
        outcome = refitbench.finish(process, TIMEOUT_S + 5)
    finally:
        refitbench.end_all()
        kill_if_there(ranks[rank])

    # A launcher that ends the stopped rank itself reports its signal.
    outcome.expect(137, 3)
    with refitbench.record(outcome) as record:
        assert text_of(record.attrs["verdict"]) == "error"
        assert int(record.attrs["error_rank"]) == rank, text_of(record.attrs["error_message"])
        assert text_of(record.attrs["error_stage"])
    assert shared_memory() == set()


@pytest.mark.parametrize("transport", ["mpi", "mpi_window"])
def test_an_interrupted_run_leaves_a_record_that_says_so(refitbench, shared_memory, transport):
    process, ranks = start_endless_run(refitbench, transport)

    os.kill(process.pid, signal.SIGINT)
    outcome = refitbench.finish(process, TIMEOUT_S + 5)

    assert outcome.code != 0, outcome
    with refitbench.record(outcome) as record:
        assert text_of(record.attrs["verdict"]) == "error"
        assert int(record.attrs["error_rank"]) == -1
        assert "interrupted" in text_of(record.attrs["error_message"])
        assert text_of(record.attrs["error_stage"])
    nothing_left(refitbench, ranks)
    assert shared_memory() == set()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_process_without_launcher_leaves_a_record(refitbench, sent):
    path = refitbench.write("endless.yaml", endless_run(2, 2, "loopback"))
    process = refitbench.start("run", path, "--output", refitbench.records, "--json", "-")
    time.sleep(2)

    process.send_signal(sent)
    outcome = refitbench.finish(process, TIMEOUT_S + 5)

    outcome.expect(3)
    with refitbench.record(outcome) as record:
        assert text_of(record.attrs["verdict"]) == "error"
        assert text_of(record.attrs["error_message"]) == "interrupted"
    assert outcome.json["verdict"] == "error" and outcome.json["exit_code"] == 3


def test_what_a_killed_run_leaves_is_removed_by_the_next(refitbench, shared_memory):
    process, ranks = start_endless_run(refitbench, "mpi_window")
    for pid in [process.pid, *ranks.values()]:
        kill_if_there(pid)
    process.wait()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}/exe") for pid in ranks.values()):
        assert time.monotonic() < deadline, "killed ranks are still there"
        time.sleep(0.05)

    refitbench.run(small_run(1, 1, "mpi_window"), np=2, name="next.yaml").expect(0)

    assert shared_memory() == set()


@pytest.mark.parametrize("transport", ["mpi", "mpi_window"])
def test_a_run_leaves_no_shared_memory(refitbench, shared_memory, transport):
    refitbench.run(small_run(1, 2, transport), np=3).expect(0)

    assert shared_memory() == set()


@pytest.mark.parametrize("rank, stage", [(0, "quantize"), (1, "pack"), (2, "load"), (3, "commit")])
def test_a_rank_that_throws_ends_the_case_in_order(refitbench, rank, stage):
    fault = f"faults: [{{name: throw, rank: {rank}, stage: {stage}}}]\n"

    outcome = refitbench.run(small_run(2, 2) + fault, np=4)

    outcome.expect(3)
    with refitbench.record(outcome) as record:
        assert int(record.attrs["error_rank"]) == rank
        assert text_of(record.attrs["error_stage"]) == stage
    assert outcome.json["verdict"] == "error"
