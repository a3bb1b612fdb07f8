# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the records of refitbench and reports on them; never reruns anything.

    import refit_reports
    record = refit_reports.load("run.h5")   # record.cases, .tensors, .findings ... are DataFrames
"""

__version__ = "0.1.0"
__all__ = ["Record", "RecordError", "load"]


def __getattr__(name: str):
    # Read only when it is wanted: --help and --version need no numpy.
    if name in __all__:
        from refit_reports import record

        return getattr(record, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
