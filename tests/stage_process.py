"""One stage in a fresh process, to see which of the library's modules it loads; nothing else is imported here."""

from __future__ import annotations


def run(stage: str, payload: bytes, folder: str) -> tuple[bytes, list[str]]:
    """A stage's pickled result, and the files of the library's modules that were loaded by the end.

    Args:
        stage: name in `dreambooth3d.stages`.
        payload: pickled inputs and options.
        folder: for the stage's files.
    """
    import pickle
    import sys
    from pathlib import Path

    from tests.coarse import search_coarsely_from_now_on

    search_coarsely_from_now_on()
    from dreambooth3d import stages
    from dreambooth3d.record import StepLog
    from dreambooth3d.runtime import Runtime

    inputs, options = pickle.loads(payload)
    value = getattr(stages, stage)(Runtime(StepLog(stage), Path(folder), progress=False), *inputs, **options)
    loaded = [name for name in sys.modules if name == "dreambooth3d" or name.startswith("dreambooth3d.")]
    return pickle.dumps(value), [str(sys.modules[name].__file__) for name in loaded]
