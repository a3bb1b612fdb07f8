# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the records of refitbench and reports on them; never reruns anything."""

__version__ = "0.1.0"
