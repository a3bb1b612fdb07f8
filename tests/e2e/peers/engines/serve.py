# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Loads checkpoint directories with an engine's own classes, one request a line.

    python serve.py vllm|sglang FOLDER_OF_THE_UNPACKED_WHEEL

Prints {"version"} when it is ready. A request is {"folder", "reference", "tp"}; the answer is
{"outcome", "said"}: `raises` with class and text of the error, `wrong` with the parameters that
hold other values than the same engine holds after loading the reference, or `right`. Every rank is
loaded apart. No folder may be named again with other contents: engines remember configurations by
path.
"""

import functools
import importlib
import json
import os
import sys
import traceback


def main(name, wheel):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What the engine prints is no answer.
    sys.path.insert(0, wheel)
    import torch
    torch.set_num_threads(1)  # The tensors are small.
    from held_values import differences, held_values, mark_unloaded
    engine = importlib.import_module(f"{name}_engine").Engine()

    def loaded(folder, size, rank):
        model, load = engine.build(folder, size, rank)
        mark_unloaded(model)
        load()
        return held_values(model)

    intended = functools.lru_cache(maxsize=64)(loaded)

    def answer(folder, reference, tp):
        wrong = []
        for rank in range(tp):
            try:
                # A model that the engine cannot hold at that size it refuses here already.
                wanted = intended(reference, tp, rank)
                held = loaded(folder, tp, rank)
            except Exception as error:  # Whatever the engine raises is its answer.
                traceback.print_exc()
                said = f"rank {rank}: {type(error).__name__}: {error}"
                return {"outcome": "raises", "said": said}
            wrong += [f"rank {rank}: {each}" for each in differences(held, wanted)]
        return {"outcome": "wrong" if wrong else "right", "said": ", ".join(wrong)}

    def write(message):
        print(json.dumps(message), file=answers, flush=True)

    write({"version": engine.version})
    for line in sys.stdin:
        write(answer(**json.loads(line)))


if __name__ == "__main__":
    main(*sys.argv[1:])
