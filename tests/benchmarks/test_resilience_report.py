"""The report that several targets write into: each its own part, nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.resilience_report import merge


def test_each_target_writes_its_own_part(tmp_path: Path) -> None:
    path = tmp_path / "resilience.json"
    (tmp_path / "resilience.md").write_text("# Resilience\n\nBefore.\n\n<!-- fuzz -->\nold\n<!-- /fuzz -->\n\nAfter.\n")
    merge(path, "load", {"runs": 100, "memory_growth": 0.5})
    merge(path, "fuzz", {"inputs": 12_000, "targets": {"photos": {"inputs": 1000}, "masks": {"inputs": 11_000}}})
    merge(path, "load", {"runs": 50, "memory_growth": 0.25})
    assert json.loads(path.read_text()) == {
        "load": {"runs": 50, "memory_growth": 0.25},
        "fuzz": {"inputs": 12_000, "targets": {"photos": {"inputs": 1000}, "masks": {"inputs": 11_000}}},
    }
    assert (tmp_path / "resilience.md").read_text() == (
        "# Resilience\n\nBefore.\n\n<!-- fuzz -->\n\n|  | inputs |\n| --- | --- |\n| all | 12,000 |\n\n"
        "| targets | inputs |\n| --- | --- |\n| photos | 1,000 |\n| masks | 11,000 |\n\n<!-- /fuzz -->\n\nAfter.\n\n"
        "<!-- load -->\n\n|  | runs | memory growth |\n| --- | --- | --- |\n| all | 50 | 0.25 |\n\n<!-- /load -->\n"
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["resilience.json", "resilience.md"]
