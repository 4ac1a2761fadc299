"""Loading a saved model in the flavour that wrote it.

A file tells which Keras wrote it: its version stands in `metadata.json` of a
`.keras` file and in the attributes of an `.h5` file; a SavedModel that a Keras
model can be made of is one of tf_keras.
"""

import contextlib
import importlib
import inspect
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tf_spline_prune._files import PathLike
from tf_spline_prune.compat._flavour import Flavour
from tf_spline_prune.compat.build._rebuild import draw_boundaries, has_no_words
from tf_spline_prune.compat.files._foreign_code import Unknown, foreign_code
from tf_spline_prune.compat.files._model_files import (
    ModelFile,
    held,
    model_format,
    read_model_file,
)
from tf_spline_prune.compat.files._pure_operations import impure_operations
from tf_spline_prune.compat.tfmot._tfmot import import_tfmot
from tf_spline_prune.errors import ModelError

__all__ = ["check_saved_model", "load_model", "model_format"]

# What either flavour says of a class in an .h5 file that it does not know.
_UNKNOWN = re.compile(r"Unknown [\w ]+: '?([\w>.]+)")


def load_model(
    path: PathLike,
    custom_objects: Mapping[str, Any] | None = None,
    safe_mode: bool = True,
) -> Any:
    """Load a model in the flavour that it was saved in.

    Args:
        path: A `.keras` or `.h5` file, or the folder of a SavedModel of tf_keras.
        custom_objects: Classes and functions of one's own, by name; registered
            ones are known without. So are TFMOT's wrappers.
        safe_mode: Whether to refuse files that carry Python code, or name classes,
            functions or operations that do more than a model needs. They are checked
            before Keras sees them; `docs/limits.md` says for what.

    Returns:
        The model.

    Raises:
        FileNotFoundError: If nothing is there.
        ModelError: If it is no model, holds weights only or the computation only,
            is broken, or needs a class that is not known or code that is refused.
        OSError: If it cannot be read.
    """
    form = model_format(path)
    place = pathlib.Path(path).expanduser()
    if form in ("saved_model", "tflite"):
        raise ModelError(
            "A Keras model is needed here, and this export holds the computation "
            "only. Give the .keras file that it was made from. Received: "
            f"{str(path)!r}"
        )
    with contextlib.ExitStack() as stack:
        if safe_mode:  # what is checked is what is loaded
            place = stack.enter_context(held(place))
        file = read_model_file(place, form, path)
        own = dict(custom_objects or {})
        found = list(foreign_code(file, {**own, **_of_tfmot(file)}))
        old = form == "h5" and file.flavour == "keras"  # a format of Keras 2
        if old:
            own = {**_short_names(), **own}  # such as "mse"
        if safe_mode:
            _check(found, path)
        # The loader of folders has no such argument, and trusts what it is given.
        kwargs = {} if form == "keras_folder" else {"safe_mode": safe_mode}
        keras = importlib.import_module(file.flavour)
        if _of_tfmot(file):
            stack.enter_context(import_tfmot().sparsity.keras.prune_scope())
        try:
            model = keras.models.load_model(str(place), custom_objects=own, **kwargs)
        except Exception as error:  # Keras raises what it likes
            text = str(error).replace(str(place), str(path))
            raise _explained(error, text, path, file.flavour, found, old) from error
        if not isinstance(model, keras.Model):
            raise ModelError(
                "The file describes no model. Expected: what `model.save` writes. "
                f"Received: {str(path)!r}, with {type(model).__name__!r} in it"
            )
        _check_state(model, not old, path)
        return model


def check_saved_model(path: PathLike) -> None:
    """Make sure that the graph of a SavedModel does nothing but compute.

    Args:
        path: The folder.

    Raises:
        ModelError: If an operation of its may do more, or it cannot be read.
    """
    place = pathlib.Path(path).expanduser()
    try:
        found = impure_operations(place, text_tables=True)
    except Exception as error:  # TensorFlow and protobuf have their own
        raise ModelError(
            "TensorFlow cannot read the SavedModel; export it again. Received: "
            f"{str(path)!r}, for which it raised {type(error).__name__}: {error}"
        ) from error
    _check([f"run the TensorFlow operation {name}" for name in found], path)


def _short_names() -> dict[str, Any]:
    """Return the losses that Keras 3 does not find by their names in `.h5` files."""
    losses = importlib.import_module("keras.src.losses").ALL_OBJECTS_DICT
    return {name: f for name, f in losses.items() if inspect.isfunction(f)}


def _check_state(model: Any, words: bool, path: PathLike) -> None:
    """Have layers that learnt of data what they learnt, or raise `ModelError`.

    Args:
        model: What Keras made of the file; layers to which tf_keras gave what they
            have seen, and no boundaries, get these.
        words: Whether the words that layers have learnt stand in the file.
        path: What errors call it.
    """
    for layer in model._flatten_layers():
        draw_boundaries(layer)
        if not words and has_no_words(layer):
            raise ModelError(
                f"The words that the layer {layer.name!r} learnt by `adapt` are not in "
                "the file: Keras leaves them out of .h5 files. Save the model as "
                f".keras, and give that file. Received: {str(path)!r}"
            )


def _of_tfmot(file: ModelFile) -> dict[str, Any]:
    """Return TFMOT's wrapper and schedules where a model has some."""
    named = _class_names(list(file.configs))
    if file.flavour == "keras" or "PruneLowMagnitude" not in named:
        return {}
    kinds = import_tfmot().sparsity.keras
    names = ("ConstantSparsity", "PolynomialDecay", "PruningSchedule")
    wrapper = importlib.import_module(kinds.prune_scope.__module__)
    return {
        "PruneLowMagnitude": wrapper.pruning_wrapper.PruneLowMagnitude,
        **{name: getattr(kinds, name) for name in names},
    }


def _class_names(entry: Any) -> Iterator[Any]:
    if isinstance(entry, dict):
        yield entry.get("class_name")
        entry = list(entry.values())
    for item in entry if isinstance(entry, list) else ():
        yield from _class_names(item)


def _check(found: Iterable[Unknown | str], path: PathLike) -> None:
    """Raise for the first thing that is not to be done, then for the first name."""
    for deed in found:
        if isinstance(deed, str):
            raise ModelError(
                f"Loading the model would {deed}, with your permissions. Only if you "
                "trust where the file comes from: --unsafe, in Python "
                f"`safe_mode=False`. Received: {str(path)!r}"
            )
    for name in found:
        if isinstance(name, Unknown):
            raise _unknown(name, path)


def _unknown(thing: Unknown, path: PathLike) -> ModelError:
    home = f" (of the module {thing.module!r})" if thing.module else ""
    return ModelError(
        f"The model needs {thing.name!r}{home}, which is not known here. Name the "
        "Python file that defines it: --import FILE.py; in Python, import it, or pass "
        f"`custom_objects`. Received: {str(path)!r}"
    )


def _explained(
    error: Exception,
    text: str,
    path: PathLike,
    flavour: Flavour,
    found: Iterable[Unknown | str],
    old: bool,
) -> Exception:
    """Describe in our words what went wrong."""
    text = " ".join(text.split())
    if "safe_mode" in text or "unsafe_deserialization" in text:
        _check(["run Python code that the file carries"], path)
    names = [thing for thing in found if isinstance(thing, Unknown)]
    if names:
        match = _UNKNOWN.search(text)
        return _unknown(Unknown(match[1], None) if match else names[0], path)
    if len(text) > 400:
        text = f"{text[:200]} ... {text[-200:]}"
    reason = "perhaps another version wrote it, or the file is broken"
    if old:
        reason = (
            "an .h5 file does not hold all that a model of Keras 3 may have. Where the "
            "model still is, save it as .keras"
        )
    return ModelError(
        f"`{flavour}` cannot load the model; {reason}. Received: {str(path)!r}, for "
        f"which it raised {type(error).__name__}: {text}"
    )
