# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""A Python that can import vLLM's and SGLang's model classes without their extensions, and a
process of it.

REFIT_PEERS_ENGINES_PYTHON names a Python with PyTorch, transformers and the packages below, and
REFIT_PEERS_WHEELS a folder with the unpacked wheels, `vllm/vllm` and `sglang/sglang`. Where they
are not set, all of it is installed below the build folder; the shared objects of the wheels are
left out.
"""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
from user_program import BUILD

SERVER = pathlib.Path(__file__).with_name("peers") / "engines" / "serve.py"
WHEELS = {"vllm": "vllm==0.33.0", "sglang": "sglang==0.5.23"}
# What the engines import on the way to their model classes.
NEEDS = ["compressed-tensors==0.17.0", "aiohttp", "blake3", "cachetools", "cbor2", "cloudpickle",
         "dill", "diskcache", "einops", "fastapi", "gguf", "IPython", "lark", "msgspec", "openai",
         "orjson", "partial-json-parser", "pillow", "prometheus_client", "protobuf", "psutil",
         "py-cpuinfo", "pybase64", "python-json-logger", "pyzmq", "regex", "requests",
         "sentencepiece", "setproctitle", "starlette", "tiktoken", "uvloop", "xxhash"]


class LoaderProcess:
    """An engine's classes in a process of their own; see peers/engines/serve.py."""

    def __init__(self, name, python, wheels, log):
        self._log = log
        environment = os.environ | {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
                                    "TRANSFORMERS_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [python, SERVER, name, wheels / name], text=True, env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        self.version = self._read()["version"]

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            pytest.fail("the engine's process ended:\n" + "\n".join(lines[-15:]), pytrace=False)
        return json.loads(line)

    def load(self, folder, reference, tp):
        """(outcome, what the engine said)."""
        request = {"folder": str(folder), "reference": str(reference), "tp": tp}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        return answer["outcome"], answer["said"]

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait(timeout=60)


def _run(command, what):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        pytest.skip(f"{what} could not be had: {said}")


def install_python(peers_python):
    """A virtual environment with NEEDS on top of the Python that has PyTorch and transformers."""
    chosen = os.environ.get("REFIT_PEERS_ENGINES_PYTHON")
    if chosen:
        return chosen
    place = BUILD / "peers-engines"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        packages = subprocess.run(
            [peers_python, "-c", "import torch; print(torch.__path__[0])"], text=True,
            capture_output=True, check=True).stdout.strip()
        _run([sys.executable, "-m", "venv", place], "a virtual environment")
        for folder in place.glob("lib/python*/site-packages"):
            (folder / "peers.pth").write_text(str(pathlib.Path(packages).parent), encoding="utf-8")
        _run([python, "-m", "pip", "install", "--quiet", *NEEDS], "what the engines import")
        (place / "complete").touch()
    return str(python)


def unpack_wheel(name, python):
    """The folder of the unpacked wheels, with that engine's in it."""
    chosen = os.environ.get("REFIT_PEERS_WHEELS")
    if chosen:
        if not (pathlib.Path(chosen) / name / name).is_dir():
            pytest.skip(f"REFIT_PEERS_WHEELS={chosen} has no folder {name}/{name}")
        return pathlib.Path(chosen)
    wheels = BUILD / "peers-engines" / "wheels"
    if not (wheels / name / name).is_dir():
        _run([python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
              "--dest", wheels, WHEELS[name]], WHEELS[name])
        for wheel in wheels.glob(f"{name}-*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(wheels / name, [entry for entry in archive.namelist()
                                                   if not entry.endswith(".so")])
            wheel.unlink()
    return wheels
