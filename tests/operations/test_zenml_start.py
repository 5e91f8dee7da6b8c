"""ZenML's files are whole whenever another process reads them, and its runs know the packages without asking pip."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.environment import get_run_environment_dict
from zenml.orchestrators import step_run_utils
from zenml.utils import yaml_utils

from operations import zenml_start
from tests.product import ROOT

WRITER = """
import sys
from zenml.utils import yaml_utils
contents = [{name: letter * 2000 for name in ("first", "second")} for letter in "ab"]
yaml_utils.write_yaml(sys.argv[1], contents[0])
print("ready", flush=True)
while True:
    for each in contents:
        yaml_utils.write_yaml(sys.argv[1], each)
"""


def test_zenml_calls_prepare() -> None:
    """By its entry point, which `make setup` installs."""
    (hook,) = [found for found in entry_points().select(group="zenml.init_hooks") if found.name == "dreambooth3d"]
    assert hook.value == "dreambooth3d.cli.zenml_hook:prepare"


def test_the_packages_of_a_run_are_those_that_pip_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    pip = [sys.executable, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    listed = subprocess.run(pip, capture_output=True, text=True, check=True).stdout.splitlines()
    monkeypatch.setattr(sys, "executable", "no-python")  # so that pip would not be found
    monkeypatch.setenv("PATH", "")
    found = get_run_environment_dict()["python_packages"].splitlines()
    assert len(found) > 100 and sorted(found) == sorted(listed)


def test_a_reader_beside_a_writer_sees_whole_files(tmp_path: Path) -> None:
    """The writer does what each start of a command does, all the time."""
    file = tmp_path / "config.yaml"
    command = [sys.executable, "-c", WRITER, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        try:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
            seen = [file.read_text() for _ in range(5000)]
        finally:
            writer.kill()
    whole = [yaml.dump(dict.fromkeys(("first", "second"), letter * 2000)) for letter in "ab"]
    assert set(seen) == set(whole)


def test_a_file_that_does_not_change_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    yaml_utils.write_yaml(str(file), {"a": 1})
    os.utime(file, (1, 1))
    yaml_utils.write_yaml(str(file), {"a": 1})
    assert file.stat().st_mtime == 1
    yaml_utils.write_yaml(str(file), {"a": 2})
    assert yaml_utils.read_yaml(str(file)) == {"a": 2} and list(tmp_path.iterdir()) == [file]


def test_rights_stay(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    yaml_utils.write_yaml(str(file), {"a": 1})
    file.chmod(0o600)
    yaml_utils.write_yaml(str(file), {"a": 2})
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_missing_folder_is_zenmls_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        yaml_utils.write_yaml(str(tmp_path / "none" / "config.yaml"), {"a": 1})


def test_a_client_that_starts_writes_nothing(home: Path) -> None:
    """So that commands that start at the same moment only read."""
    files = [home / ".zen" / "config.yaml", home / ".zenconfig" / "config.yaml"]
    for file in files:
        os.utime(file, (1, 1))
    GlobalConfiguration._reset_instance()
    Client._reset_instance()
    assert Client().active_stack_model.name == "local_mlflow"
    assert [file.stat().st_mtime for file in files] == [1, 1]


@pytest.mark.parametrize(("raised", "said"), [("database is locked", "locked by another"), ("other", "other")])
def test_a_fault_of_the_machine_is_one_sentence_also_in_zenmls_own_commands(raised: str, said: str) -> None:
    script = (
        "from operations.zenml_start import tell_faults_in_one_sentence\n"
        f"tell_faults_in_one_sentence()\nraise RuntimeError({raised!r})"
    )
    active = os.environ | {"DREAMBOOTH3D_ACTIVE": "1"}
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=active, capture_output=True, text=True)
    assert result.returncode == 1 and said in result.stderr
    assert ("Traceback" in result.stderr) == (raised == "other")


def test_advertisements_stay_out_of_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """ZenML's own functions say them, at the places that are silenced; other lines of the same loggers stay."""
    caplog.set_level(logging.INFO)
    for name, words in zenml_start._ADVERTISING.items():
        assert words in inspect.getsource(importlib.import_module(name)).replace('"\n            "', "")
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        logging.getLogger(name).addHandler(caplog.handler)
        logging.getLogger(name).setLevel(logging.INFO)
    version = SimpleNamespace(model=SimpleNamespace(name="m"), name="1")
    monkeypatch.setattr("zenml.utils.dashboard_utils.get_model_version_url", lambda _: None)
    step_run_utils.log_model_version_dashboard_url(version)
    assert not caplog.records
    monkeypatch.setattr("zenml.utils.dashboard_utils.get_model_version_url", lambda _: "https://zenml.example")
    step_run_utils.log_model_version_dashboard_url(version)
    assert "https://zenml.example" in caplog.text
