"""`public_names`: what a package makes public, each name imported at its first use.

A name is written once, in the stub `__init__.pyi` of its package, as editors and type
checkers read it: `from tf_spline_prune.pruning import plan as plan`.
"""

import ast
import importlib
import pathlib
import sys
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, str] = MappingProxyType({})
# Keras and TensorFlow import each other: two threads that begin with one each would
# see halves. A thread that imports a private module by itself may hold what another
# waits for, so nobody waits for ever.
_ONE_AT_A_TIME = threading.RLock()
_PATIENCE = 60.0  # seconds


def public_names(
    package: str, file: str, hints: Mapping[str, str] = _NONE
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make `__getattr__`, `__dir__` and `__all__` of a package from its stub.

    Args:
        package: Its `__name__`.
        file: Its `__file__`; the stub lies beside it.
        hints: What to say of a name that is not there, by name.
    """
    homes = homes_of(file)

    def find(name: str) -> Any:
        if name not in homes:
            hint = f". {hints[name]}" if name in hints else ""
            raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")
        home, there = homes[name]
        held = _ONE_AT_A_TIME.acquire(timeout=_PATIENCE)
        try:
            if home == package:
                value = importlib.import_module(f"{home}.{there}")
            else:  # a name, or a module within `home`
                value = getattr(__import__(home, fromlist=[there]), there)
        finally:
            if held:
                _ONE_AT_A_TIME.release()
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return [*homes, *{"__version__"}.intersection(vars(sys.modules[package]))]

    return find, names, sorted(homes)


def homes_of(file: str) -> dict[str, tuple[str, str]]:
    """Read the stub of a package: for each public name, where it is, and its name."""
    stub = pathlib.Path(file).with_suffix(".pyi").read_text("utf-8")
    return {
        alias.asname: (node.module or "", alias.name)
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
