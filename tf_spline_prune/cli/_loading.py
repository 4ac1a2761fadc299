"""Models and data as the options of a command name them; outputs, checked early."""

import argparse
import importlib
import importlib.util
import os
import pathlib
import sys
from types import ModuleType
from typing import Any

import tf_spline_prune as tsp
from tf_spline_prune.errors import UsageError


def own_objects(modules: list[str]) -> dict[str, Any]:
    """Import the modules of `--import`.

    Args:
        modules: Python files or names of modules.

    Returns:
        The classes and functions that they define, by name.

    Raises:
        ImportError: If one cannot be imported.
    """
    own = {}
    for name in modules:
        module = _imported(name)
        for key, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__:
                own[key] = value
    return own


def load(path: str, options: argparse.Namespace) -> Any:
    """Load a Keras model of either flavour, masks included.

    Args:
        path: The file or folder.
        options: Those of the command.

    Returns:
        The model.
    """
    # What models may hold of this package registers itself when it is imported.
    from tf_spline_prune import masking, schedules  # noqa: F401
    from tf_spline_prune.compat import load_model

    return load_model(path, options.own_objects, safe_mode=not options.unsafe)


def load_plain(path: str, options: argparse.Namespace) -> Any:
    """Load a Keras model without its masks; what they removed is zero.

    Args:
        path: The file or folder.
        options: Those of the command.

    Returns:
        The model, compiled as it was saved.
    """
    from tf_spline_prune.compat import mask_slots, say

    model = load(path, options)
    if not mask_slots(model):
        return model
    say(f"The masks of {path} are stripped; what they removed is zero.")
    return tsp.strip_masks(model)


def load_data(options: argparse.Namespace) -> tuple[Any, Any]:
    """Draw inputs and labels of the data set that was asked for.

    Args:
        options: Those of the command.

    Returns:
        Arrays of the inputs and of the labels.
    """
    batches = tsp.datasets.load(
        options.data,
        options.split or "train",
        options.num_samples,
        shuffle=True,
        seed=getattr(options, "seed", 0),
        scale=options.scale,
    )
    inputs, labels = next(iter(batches))
    return inputs.numpy(), labels.numpy()


def check_input(path: str) -> None:
    """Raise unless there is something at a path that is to be read.

    Raises:
        FileNotFoundError: If there is nothing.
    """
    if not pathlib.Path(path).expanduser().exists():
        raise FileNotFoundError(f"There is no such file or folder. Received: {path!r}")


def check_output(
    path: str | None, endings: tuple[str, ...], overwrite: bool = False
) -> None:
    """Raise unless a file can be written, before the work on it begins.

    Args:
        path: The file; `None` is none.
        endings: How its name may end.
        overwrite: Whether it may exist.

    Raises:
        UsageError: If its name ends otherwise.
        FileExistsError: If it exists and may not.
        OSError: If its folder cannot be written to.
    """
    if path is None:
        return
    target = pathlib.Path(path).expanduser().absolute()
    if not target.name.endswith(endings) or target.name.endswith(".weights.h5"):
        raise UsageError(
            f"The name of the output must end in {' or '.join(endings)}, which says "
            f"what is written. Received: {path!r}"
        )
    if target.is_dir():
        raise IsADirectoryError(
            "There is a folder of the name of the output. Choose another name. "
            f"Received: {path!r}"
        )
    if target.exists() and not overwrite:
        raise FileExistsError(
            "The output exists already. Name another, or replace it with --overwrite. "
            f"Received: {path!r}"
        )
    folder = next(place for place in target.parents if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(
            "The folder of the output cannot be written to. Name a folder that you "
            f"may write to. Received: {path!r}"
        )


def _imported(name: str) -> ModuleType:
    """Import a Python file or a module."""
    path = pathlib.Path(name).expanduser()
    try:
        if path.suffix != ".py":
            return importlib.import_module(name)
        # By its own name: that is where Keras looks for the classes it holds.
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        sys.modules.setdefault(path.stem, module)
        try:
            spec.loader.exec_module(module)  # type: ignore[union-attr]
        except BaseException:
            if sys.modules.get(path.stem) is module:
                del sys.modules[path.stem]
            raise
        return module
    except (Exception, SystemExit) as error:  # a user's module raises what it likes
        raise ImportError(
            "The module of --import cannot be imported. Expected: a Python file "
            f"(layers.py) or a module on the path (package.layers). Received: {name!r},"
            f" which raised {type(error).__name__}: {error}"
        ) from error
