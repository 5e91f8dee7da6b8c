"""Strategies of damaged and odd inputs: bytes, plain values, tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from hypothesis import strategies as st

DEEP: Any = []
for _ in range(60):
    DEEP = [DEEP]
ODD = (
    None, True, False, -1, 0, 1, 7, 2**31, 10**30, -(10**400), 0.5, -0.0, 1e-300, 1e308, float("inf"), float("nan"),
    "", " ",
    "x", "x" * 5000, "null", "1e-3", "../../evil.txt", "/etc/passwd", "~", "${HOME}", "a\nb", "\0", "\ud800", "ä\u202e",
    "2024-01-01", [], {}, [[]], [None], {"a": 1}, {"": {}}, ["../evil"], [1, 2, 3], DEEP,
)  # fmt: skip
"""Values that no schema expects everywhere."""
DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)


def odd_values() -> st.SearchStrategy[Any]:
    """A value out of place."""
    return st.sampled_from(ODD).map(copy.deepcopy) | st.text(max_size=12) | st.integers() | st.floats()


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, most: int = 4) -> bytes:
    """Bytes with one to `most` edits: flipped bits, others' bytes, holes, copies, ends."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, most))):
        last = max(0, len(data) - 1)
        # Spread by a multiplication, since hypothesis prefers small numbers and so the files' first bytes.
        place = draw(st.integers(0, 2**20)) * 2654435761 % (last + 1)
        place = min(place, 40) if draw(st.integers(0, 3)) == 3 else place
        kind = draw(st.sampled_from(("flip", "flip", "write", "insert", "delete", "cut", "double", "zeros")))
        if kind == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "write":
            new = draw(st.sampled_from((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff")) | st.binary(max_size=8))
            data[place : place + len(new)] = new
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "delete":
            del data[place : place + draw(st.integers(1, 32))]
        elif kind == "cut":
            del data[place:]
        elif kind == "double":
            data[place:place] = data[place : place + 64]
        elif kind == "zeros":
            data[place:] = bytes(len(data) - place)
    return bytes(data)


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a plain value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*above, key)
        yield from _places(one, (*above, key))


@st.composite
def altered(draw: st.DrawFn, value: Any, most: int = 3) -> Any:
    """A plain value with one to `most` of what is in it replaced, removed, renamed, wrapped, moved or added."""
    root = [copy.deepcopy(value)]
    for _ in range(draw(st.integers(1, most))):
        places = [place for place in _places(root) if place]
        place = draw(st.sampled_from(places))
        parent = root
        for key in place[:-1]:
            parent = parent[key]
        key, kind = place[-1], draw(st.sampled_from(("replace", "replace", "remove", "rename", "wrap", "move", "add")))
        if kind == "replace" or (kind == "remove" and parent is root):
            parent[key] = draw(odd_values())
        elif kind == "remove":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict):
            name = draw(
                st.sampled_from(("base", "training", "generation", "stack", "gates", "", "<<", f"{key}s", "a.b"))
            )
            parent[name] = parent.pop(key)
        elif kind == "wrap":
            parent[key] = draw(st.sampled_from(([parent[key]], {"value": parent[key]}, str(parent[key]))))
        elif kind == "move":
            other, source = draw(st.sampled_from(places)), root
            for step in other:
                source = source[step]
            parent[key] = copy.deepcopy(source)
        elif isinstance(parent[key], dict):
            parent[key][draw(st.text(max_size=8) | st.sampled_from(("base", "x", "path")))] = draw(odd_values())
        elif isinstance(parent[key], list):
            parent[key].append(draw(odd_values()))
    return root[0]


@st.composite
def altered_tensors(draw: st.DrawFn, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of which one to three have another name, shape, type or content, or are gone."""
    result = dict(tensors)
    for _ in range(draw(st.integers(1, 3))):
        if not result:
            break
        name = draw(st.sampled_from(sorted(result)))
        value = result[name]
        kind = draw(st.sampled_from(("remove", "rename", "dtype", "shape", "empty", "nan", "scalar", "add", "longer")))
        if kind in ("remove", "rename"):
            del result[name]
        if kind == "rename":
            result[draw(st.sampled_from((f"x.{name}", name[1:], "../evil", "")) | st.text("ab._", max_size=8))] = value
        elif kind == "dtype":
            result[name] = value.to(draw(st.sampled_from(DTYPES)))
        elif kind == "shape":
            result[name] = value[None] if draw(st.booleans()) else value.flatten()
        elif kind == "empty":
            result[name] = value.new_zeros((0, *value.shape[1:]))
        elif kind == "nan" and value.is_floating_point():
            result[name] = torch.full_like(value, draw(st.sampled_from((float("nan"), float("inf"), 1e30, -1.0))))
        elif kind == "scalar":
            result[name] = torch.tensor(1.0)
        elif kind == "add":
            result["more"] = torch.zeros(draw(st.integers(0, 4)), 3)
        elif kind == "longer":
            result[name] = torch.cat([value, value]) if value.dim() else value
    return result
