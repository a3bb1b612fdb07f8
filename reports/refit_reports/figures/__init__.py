# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""One figure a file. Each has `draw(record) -> list[Drawing]`, a pure function of a record."""

from refit_reports.figures import (
    accuracy, bandwidth, bucket_timeline, histograms, iterations, memory, stage_times,
)

# In the order in which they stand in a report.
ALL = [stage_times, bucket_timeline, bandwidth, iterations, accuracy, histograms, memory]
