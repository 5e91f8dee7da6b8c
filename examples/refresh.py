"""Run the notebook and keep what it shows: `make notebook`.

Left out is what changes from run to run without saying anything: times of cells, and text that goes to stderr.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("dreambooth3d.ipynb")
SECONDS_PER_CELL = 300


def executed(notebook: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a run in an empty folder.

    Raises:
        CellExecutionError: a cell has failed.
    """
    found = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            found, timeout=SECONDS_PER_CELL, record_timing=False, resources={"metadata": {"path": folder}}
        )
        client.execute()
    for cell in found.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", ()):
            # A picture is there as both; the smaller one is enough to look at.
            if {"image/png", "image/jpeg"} <= output.get("data", {}).keys():
                del output.data["image/png"]
    return found


def main() -> None:
    """Write the notebook with what it shows now."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    nbformat.write(executed(NOTEBOOK), NOTEBOOK)
    print(f"{NOTEBOOK.name}: {NOTEBOOK.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
