"""CITATION.cff is what its format asks for, and agrees with the package."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from dreambooth3d import __version__
from tests.product import ROOT

SCHEMA = json.loads(Path(__file__).with_name("citation.schema.json").read_text())


def citation() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_it_is_valid() -> None:
    jsonschema.Draft7Validator(SCHEMA, format_checker=jsonschema.FormatChecker()).validate(citation())
    assert citation()["version"] == __version__ and citation()["license"] == "Apache-2.0"


@pytest.mark.parametrize("change", [{"authors": []}, {"license": "Apache"}, {"surname": "x"}, {"cff-version": "2"}])
def test_the_schema_refuses_what_is_none(change: dict) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(SCHEMA).validate(citation() | change)
