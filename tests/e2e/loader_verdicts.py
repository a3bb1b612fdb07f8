# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The cases of loader_verdicts.csv, and the checkpoint that belongs to each."""

import csv
import dataclasses
import fnmatch
import pathlib
import re

from checkpoint_faults import FAULTS, build_faulty

TABLE = pathlib.Path(__file__).with_name("loader_verdicts.csv")

# The table's words for a fault, where the two differ; "ok ..." and a model alone are right ones.
FAULT_OF = {
    "ok shards": "shards", "ok scale bf16": "scale bf16", "ok scale f16": "scale f16",
    "attention scale name ct": "attention scale names",
    "attention scale name ct dense": "attention scale names",
    "code 7f": "code 7f", "code ff": "code ff", "dsv3 unknown": "unknown projection",
    "expert code 7f": "code 7f", "expert cols long": "weight cols long end",
    "expert gate missing": "weight missing", "expert rows short 64": "weight rows short",
    "expert scale 1d down": "scale 1d", "expert scale 1x1": "scale 1x1",
    "expert scale name ct": "scale names", "expert scale short": "scale rows short",
    "expert scale transposed": "scale transposed", "expert stacked": "experts stacked",
    "format pack quantized": "config pack quantized", "ignore missing lm head": "ignore list empty",
    "ignore one of qkv": "skip q", "ignored but quantized": "listed but quantized",
    "kv a missing": "weight missing", "kv a scale floor": "scale rows short",
    "kv b scale nan": "scale nan", "lm head quantized": "head quantized",
    "no algo": "config no algorithm", "no groups": "config no groups", "pbwo scale 2d": "scales 2d",
    "q a scale missing": "scale missing", "scale 2d": "scales 2d",
    "scale 64 blocks": "blocks of 64",
    "scale cols short down": "scale cols short", "scale long end": "scale 64 long end",
    "scale long front": "scale 64 long front", "scale missing q": "scale missing",
    "scale name inv": "scale names", "scale name one": "scale name",
    "scale short": "scale 64 short",
    "scale transposed down": "scale transposed", "shared expert scale missing": "scale missing",
    "skip one of qkv": "skip q", "stale tensor": "stale",
    "strategy tensor with channel scales": "config strategy tensor", "tensor scale 0d": "scales 0d",
    "tensor scale two": "scale two elements", "tied alias differs": "head tied different",
    "tied alias equal": "head tied equal", "vocab long": "vocabulary long",
    "weight bf16 one no scale": "weight bf16 without scale",
    "weight bf16 q with scale": "weight bf16 with scale",
    "weight cols short down": "weight cols short",
    "weight missing k": "weight missing", "weight rows short gate": "weight rows short",
}
RIGHT = ("ok ", "ragged qkv", "tp2 cuts", "llama block", "tensor ok")
# Cases whose glob names more than the one module that is broken.
MODULES = {"expert gate missing": "model.layers.0.mlp.experts.1.gate_proj",
           "expert code 7f": "model.layers.1.mlp.experts.2.down_proj",
           "q a scale missing": "model.layers.0.self_attn.q_a_proj"}
# Square scale grids look the same transposed.
SQUARE = {"expert scale transposed"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table."""

    case: str
    engine: str
    tp: int
    model: str
    scheme: str
    tensors: str
    verdict: str
    loader: str

    def __str__(self):
        return f"{self.engine} {self.case} {self.model} {self.scheme} tp{self.tp}".replace(" ", "-")

    @property
    def fault(self):
        """Name of the fault in FAULTS."""
        if self.case in FAULT_OF:
            return FAULT_OF[self.case]
        return "nothing" if self.case.startswith(RIGHT) else self.case

    @property
    def needs_reference(self):
        """Nothing in the checkpoint itself contradicts the fault."""
        return FAULTS[self.fault][2] or self.case in SQUARE

    def build(self):
        """The checkpoint of the row."""
        named = re.fullmatch(r"((model\.layers\.\d\.)?[^*]*[^*.])\*", self.tensors)
        module = MODULES.get(self.case) or (named and named.group(1))
        if self.fault in ("extra layer", "layer missing", "expert missing", "head quantized",
                          "head tied equal", "head tied different", "ignore list empty"):
            module = None
        return build_faulty(self.model, self.scheme, self.fault, module)


def cases():
    """Every row of the table."""
    with TABLE.open(encoding="utf-8") as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return [Case(**{**row, "tp": int(row["tp"])}) for row in rows]


def named(findings, pattern, severities=("error", "warning")):
    """The findings on tensors that match a glob."""
    return [f for f in findings
            if f["severity"] in severities and fnmatch.fnmatch(f["tensor"], pattern)]
