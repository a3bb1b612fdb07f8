# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Which files the lints look at: what git tracks or would track, without build folders."""

import os
import pathlib
import subprocess


def source_files(root):
    """Sorted paths relative to `root`, with forward slashes, of all tracked and new files.

    Where `root` is no git work tree (an unpacked archive), all files outside build folders.
    """
    root = pathlib.Path(root)
    command = ["git", "-c", "safe.directory=*", "-C", str(root)]
    command += ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    paths = None
    if (root / ".git").exists():
        listing = subprocess.run(command, capture_output=True, check=False)
        if listing.returncode == 0:
            paths = [os.fsdecode(path) for path in listing.stdout.split(b"\0") if path]
    if paths is None:
        paths = [path.relative_to(root).as_posix() for path in root.rglob("*")]
        paths = [path for path in paths if not path.startswith(("build", ".git/", ".cache"))]
    return sorted({path for path in paths if (root / path).is_file()})
