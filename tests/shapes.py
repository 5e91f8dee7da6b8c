"""Checks, while the tests run, the shapes that the library's signatures declare.

jaxtyping's own import hook wraps every function, closures included, and what stands in for a model fails its checks.
This one wraps the functions, methods and dataclasses' constructors that declare a shape, and checks the shapes alone.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped


def check_shapes(package: str) -> None:
    """Check the shapes of all modules of a package that are imported from now on."""
    imported = [name for name in sys.modules if name.split(".")[0] == package]
    if imported:
        raise RuntimeError(f"{imported} are imported already: their shapes would go unchecked")
    sys.meta_path.insert(0, _Finder(package))


class _Finder(MetaPathFinder):
    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The usual module, wrapped once it has been executed."""
        if fullname.split(".")[0] != self._package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_wrap(module: ModuleType) -> None:
                execute(module)
                _wrap_module(module)

            spec.loader.exec_module = execute_and_wrap
        return spec


def _wrap_module(module: ModuleType) -> None:
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    for value in own:
        if isinstance(value, FunctionType) and _declares_shapes(value):
            setattr(module, value.__name__, _checked(value))
        elif isinstance(value, type):
            _wrap_class(value)


def _wrap_class(cls: type) -> None:
    for name, member in list(vars(cls).items()):
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("__") and not (name == "__init__" and dataclasses.is_dataclass(cls)):
            continue
        if isinstance(function, FunctionType) and _declares_shapes(function):
            setattr(cls, name, _checked(member))


def _declares_shapes(function: FunctionType) -> bool:
    return any('[Tensor, "' in str(hint).replace("'", '"') for hint in function.__annotations__.values())


def _checked(function: Any) -> Any:
    return jaxtyped(function, typechecker=_shapes_alone)


def _shapes_alone(function: Callable) -> Callable:
    hints = {name: hint for name, hint in function.__annotations__.items() if _is_shape(hint)}
    function.__annotations__ = hints
    return beartype(function) if hints else function


def _is_shape(hint: Any) -> bool:
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_is_shape, get_args(hint)))
