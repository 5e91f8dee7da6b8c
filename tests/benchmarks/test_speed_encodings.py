"""The timing of the encodings, on a CPU."""

from time import perf_counter

from benchmarks.speed.encodings import time_encodings


def test_samples_are_milliseconds_of_each_call() -> None:
    start = perf_counter()
    samples = time_encodings(points=16, repeats=3, device="cpu")
    elapsed_ms = (perf_counter() - start) * 1e3
    assert list(samples) == ["torch fp32"] and len(samples["torch fp32"]) == 3
    # Three counted calls of the six, and the making of the grid, fill the time.
    assert 0.02 * elapsed_ms < sum(samples["torch fp32"]) < elapsed_ms
