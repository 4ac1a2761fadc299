"""What a model's description names that is not Keras' own, nor the user's.

Keras makes objects of a description by names: of modules, classes, functions and
TensorFlow operations. A file may name what it likes, so each name is looked up here,
in every place where Keras might look, and taken only if what is found is a layer,
an initializer or the like, or a function that computes. Nothing is called, and no
module is imported because a file names it.

The config of a class of the user's may hold data that look like such names. What Keras
could find nowhere is taken for data there, and no alarm.
"""

import contextlib
import dataclasses
import importlib
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tf_spline_prune.compat._flavour import Flavour
from tf_spline_prune.compat.files._model_files import ModelFile
from tf_spline_prune.compat.files._pure_operations import (
    is_pure_function,
    is_pure_operation,
)


@dataclasses.dataclass(frozen=True)
class Unknown:
    """A class or function that is neither Keras' nor the user's."""

    name: str
    module: str | None


# A sentence's end: "Loading it would ..."
Deed = str

# The packages whose classes may be named, by flavour.
_ROOTS = {"keras": ("keras", "keras_hub"), "tf_keras": ("keras", "tf_keras")}
# The classes of which an object in a description can be, as dotted names.
_KINDS = {
    "keras": (
        "keras.InputSpec keras.Operation keras.DTypePolicy "
        "keras.dtype_policies.DTypePolicyMap "
        "keras.constraints.Constraint keras.initializers.Initializer "
        "keras.losses.Loss keras.metrics.Metric keras.optimizers.Optimizer "
        "keras.optimizers.schedules.LearningRateSchedule "
        "keras.quantizers.QuantizationConfig keras.quantizers.Quantizer "
        "keras.random.SeedGenerator keras.regularizers.Regularizer "
        "keras.src.saving.keras_saveable.KerasSaveable"
    ),
    "tf_keras": (
        "tf_keras.layers.InputSpec tf_keras.layers.Layer "
        "tf_keras.constraints.Constraint tf_keras.initializers.Initializer "
        "tf_keras.losses.Loss "
        "tf_keras.mixed_precision.Policy tf_keras.optimizers.Optimizer "
        "tf_keras.optimizers.legacy.Optimizer "
        "tf_keras.optimizers.schedules.LearningRateSchedule "
        "tf_keras.regularizers.Regularizer tf_keras.utils.FeatureSpace"
    ),
}
# `tf.random_normal_initializer` and the like, which Keras layers take as well.
_INITIALIZERS_OF_TF = re.compile(r"tensorflow\.python\.ops\.init_ops(_v2)?")
# Where functions that may be named are defined.
_FUNCTIONS = re.compile(
    r"(tf_keras\.src\.(activations|losses|metrics|regularizers)|"
    r"keras\.src\.(activations|losses|metrics|ops|legacy\.losses))(\.|$)"
)
_NO_FUNCTIONS = frozenset(["deserialize", "get", "serialize"])
# In which of their modules the flavours look names up that come without a module.
_ROOMS = (
    "activations constraints initializers layers losses metrics optimizers "
    "optimizers.schedules regularizers src.activations src.constraints "
    "src.initializers src.losses src.metrics src.regularizers "
    "src.optimizers.schedules.learning_rate_schedule"
).split()
_BUILTIN = "activations constraints initializers losses metrics optimizers regularizers"
# Keys whose strings are such names.
_NAMING_KEY = re.compile(
    r"(activation|initializer|regularizer|constraint|loss|metrics?|optimizer|fn)$"
)
# Values that are no references, though they are written like ones.
_VALUES = frozenset(
    "__bytes__ __ellipsis__ __keras_tensor__ __numpy__ __slice__ __tensor__ __tuple__ "
    "CompositeTensor TensorShape TypeSpec".split()
)
_SPECS = frozenset(["RaggedTensorSpec", "SparseTensorSpec", "TensorSpec"])
_CARRIED = "run Python code that the file carries"
# Methods and attributes of ragged and sparse tensors.
_METHODS = re.compile(
    r"from_(nested_)?(row|value|uniform)_\w+|from_(tensor|sparse)|to_(tensor|sparse)|"
    r"with_\w*(values|dtype)|(nested_)?(value_rowids|row_\w+)|nrows|merge_dims|"
    r"bounding_shape|(flat_)?values|indices|dense_shape"
)


def foreign_code(file: ModelFile, own: Mapping[str, Any]) -> Iterator[Unknown | Deed]:
    """Find what loading a model would do beyond building it.

    Args:
        file: What the model says of itself.
        own: Classes and functions of the user's, by name; registered ones are known
            without.

    Yields:
        A class or function that is not known, or what would be done, to follow
        "Loading it would".
    """
    for name in file.operations:
        yield f"bring the TensorFlow operation {name}, which may do more than compute"
    for name in file.links:
        yield f"read the file {name!r}, to which its weights point"
    judge = _Judge(file, own)
    for config in file.configs:
        yield from judge.look(config)


class _Judge:
    """Takes or refuses what a description names."""

    def __init__(self, file: ModelFile, own: Mapping[str, Any]) -> None:
        self.flavour, self.revivable = file.flavour, file.revivable
        self._saving = importlib.import_module(self.flavour).saving
        self._given = own
        self._kinds = tuple(map(_named, _KINDS[self.flavour].split()))
        modules = (f"{self.flavour}.{room}" for room in _ROOMS)
        self._rooms = [vars(sys.modules[m]) for m in modules if m in sys.modules]
        self._rooms.append({cls.__name__: cls for cls in _below(self._kinds)})

    def look(
        self, entry: Any, key: str = "", in_own: bool = False
    ) -> Iterator[Unknown | Deed]:
        """Walk through every dict, list and string of a description.

        Args:
            entry: One of these.
            key: Under which it stands.
            in_own: Whether only a class of the user's makes anything of it.

        Yields:
            As `foreign_code`.
        """
        if isinstance(entry, str):
            yield from self._string(entry, key)
        elif isinstance(entry, list):
            for item in entry:
                yield from self.look(item, key, in_own)
        elif isinstance(entry, dict):
            if "class_name" in entry and not (in_own and self._is_data(entry)):
                yield from self._reference(entry)
                key, in_own = "", self._is_left_to_user(entry)
            if isinstance(entry.get("vocabulary"), str) and not in_own:
                yield f"read the file {entry['vocabulary']!r} for a vocabulary"
            for inner, item in entry.items():
                key_of = key if _NAMING_KEY.search(key) else inner
                yield from self.look(item, key_of, in_own)

    def is_own(self, name: Any) -> bool:
        """Whether a name is one of the user's, given or registered."""
        return self._own(name) is not None

    def _own(self, name: Any) -> Any:
        if not isinstance(name, str):
            return None
        return self._saving.get_registered_object(name, self._given)

    def _is_left_to_user(self, entry: dict[str, Any]) -> bool:
        """Whether a class of the user's is made, and no reader of Keras' inside it."""
        name, module = entry["class_name"], entry.get("module")
        registered = entry.get("registered_name", name)
        if not self.is_own(name if module is None else registered):
            return False
        if not self.is_own(name) and self._without_module(name):
            return False  # some places would make that one
        return not any(_reads_vocabulary(self._own(n)) for n in (name, registered))

    def _is_data(self, entry: dict[str, Any]) -> bool:
        """Whether Keras could make nothing of a dict, though it has a `class_name`."""
        name = entry["class_name"]
        if isinstance(name, dict) or entry.get("module") is not None:
            return False
        names = (name, entry.get("registered_name"), entry.get("config"))
        for each in (n for n in names if isinstance(n, str)):
            if each.startswith("__") or each in _VALUES:
                return False
            if self.is_own(each) or self._without_module(each):
                return False
        return True

    def _string(self, text: str, key: str) -> Iterator[Deed]:
        if key.endswith("_type") and text == "lambda":
            yield f"{_CARRIED}, as {key.removesuffix('_type')}"
        elif _NAMING_KEY.search(key) and not self.is_own(text):
            if not all(map(self._taken, self._without_module(text))):
                yield f"use {text!r} as {key}, which it is not"

    def _reference(self, entry: dict[str, Any]) -> Iterator[Unknown | Deed]:
        name, module = entry["class_name"], entry.get("module")
        registered = entry.get("registered_name", name)
        if not all(isinstance(n, str) for n in (name, module or "", registered or "")):
            yield f"make an object of {name!r}, which is no name of a class"
        elif name == "__lambda__":
            yield _CARRIED
        elif name == "__typespec__":
            known = (
                str(module).startswith("tensorflow.python.") and module in sys.modules
            )
            if not known or entry.get("spec_name") not in _SPECS:
                yield Unknown(str(entry.get("spec_name")), module)
        elif name == "function":
            yield from self._function(entry.get("config"), module, registered)
        elif name not in _VALUES or module is not None:
            yield from self._class(name, module, registered, entry.get("config"))

    def _class(
        self, name: str, module: str | None, registered: str | None, config: Any
    ) -> Iterator[Unknown | Deed]:
        # Some places look the bare name up, whatever stands beside it.
        bare = [] if self.is_own(name) else self._without_module(name)
        found: list[Any] = []
        if not self.is_own(name if module is None else registered):
            found = bare if module is None else self._in_module(module, name)
            if not found and not (module is None and self.revivable):
                yield Unknown(name, module)
            if module is not None:
                found = found + self._in_module(module, registered or name)
        for thing in {id(thing): thing for thing in found + bare}.values():
            if not (isinstance(thing, type) and self._taken(thing)):
                yield f"use {_dotted(module, name)!r}, which is no layer or the like"
                continue
            for base in thing.__mro__:
                if base.__name__ in _RULES:
                    config = config if isinstance(config, dict) else {}
                    yield from _RULES[base.__name__](config, self.is_own)

    def _function(
        self, name: Any, module: str | None, registered: str | None
    ) -> Iterator[Unknown | Deed]:
        places = [str(module)]
        if module == "builtins":
            places = [f"keras.{room}" for room in _BUILTIN.split()]
        # Which of the two is looked up differs from place to place.
        names = [name] if registered in (None, "function") else [name, registered]
        for each in names:
            if self.is_own(each):
                continue
            if module == "builtins" and self._is_own_in_short(str(each)):
                continue
            found = [t for p in places for t in self._in_module(p, str(each))]
            if not found:
                yield Unknown(str(each), module)
            elif not all(map(self._taken, found + self._without_module(str(each)))):
                yield f"call {_dotted(module, each)!r}, which may do more than compute"

    def _is_own_in_short(self, name: str) -> bool:
        """Whether Keras 3 finds a function of the user's; before 3.7 it wrote so."""
        known = (*self._given, *self._saving.get_custom_objects())
        return self.flavour == "keras" and any(k.endswith(f">{name}") for k in known)

    def _taken(self, thing: Any) -> bool:
        """Whether something that a name stands for may be used."""
        if isinstance(thing, type):
            if _INITIALIZERS_OF_TF.fullmatch(thing.__module__):
                return any(base.__name__ == "Initializer" for base in thing.__mro__)
            root = thing.__module__.partition(".")[0]
            return issubclass(thing, self._kinds) and root in _ROOTS[self.flavour]
        return _is_keras_function(thing) or is_pure_function(thing)

    def _without_module(self, name: str) -> list[Any]:
        """Find what a name stands for that comes without a module."""
        return [room[name] for room in self._rooms if callable(room.get(name))]

    def _in_module(self, module: str, name: str) -> list[Any]:
        """Find what a name stands for in a module, if that is there already."""
        root, dot, rest = module.partition(".")
        if root not in (*_ROOTS[self.flavour], "tensorflow"):
            return []
        if root == "keras_hub":  # Keras imports it where a file names it
            with contextlib.suppress(ImportError):
                importlib.import_module(root)
        if self.flavour == "tf_keras" and root == "keras":
            root = "tf_keras"
        home = sys.modules.get(f"{root}{dot}{rest}")
        found = [_symbol(self.flavour, f"{module}.{name}")]
        found += [vars(home).get(name)] if home is not None else []
        return [thing for thing in found if thing is not None]


def _named(dotted: str) -> type:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _below(kinds: Iterable[type]) -> Iterator[type]:
    """Yield classes and all of the same package that are derived from them."""
    for kind in kinds:
        yield kind
        root = kind.__module__.partition(".")[0]
        derived: list[type] = type.__subclasses__(kind)
        yield from _below(c for c in derived if c.__module__.startswith(f"{root}."))


def _reads_vocabulary(thing: Any) -> bool:
    """Whether something is derived from a class of Keras' that takes a vocabulary."""
    roots = {root for names in _ROOTS.values() for root in names}
    bases = thing.__mro__ if isinstance(thing, type) else ()
    return any(
        "vocabulary" in inspect.signature(vars(base)["__init__"]).parameters
        for base in bases
        if base.__module__.partition(".")[0] in roots and "__init__" in vars(base)
    )


def _is_keras_function(thing: Any) -> bool:
    if not isinstance(thing, types.FunctionType) or thing.__name__ in _NO_FUNCTIONS:
        return False
    return bool(_FUNCTIONS.match(thing.__module__))


def _symbol(flavour: Flavour, name: str) -> Any:
    """Find what the public API of Keras, or of TensorFlow, calls so."""
    if flavour == "keras":
        home = "keras.src.api_export"
    else:
        home = "tensorflow.python.util.tf_export"
        name = f"compat.v1.{name}" if "__internal__.legacy" in name else name
    return importlib.import_module(home).get_symbol_from_name(name)


def _dotted(module: str | None, name: str) -> str:
    return f"{module}.{name}" if module else name


Rule = Callable[[dict[str, Any], Callable[[Any], bool]], Iterator[Deed]]


def _tf_function(config: dict[str, Any], is_own: Any) -> Iterator[Deed]:
    symbol = config.get("function")
    thing = _symbol("tf_keras", str(symbol))
    if not (is_pure_function(thing) or _is_keras_function(thing)):
        yield f"call `tf.{symbol}`, which may do more than compute"


def _tf_operation(config: dict[str, Any], is_own: Any) -> Iterator[Deed]:
    node = config.get("node_def")
    name = node.get("op") if isinstance(node, dict) else None
    if not is_pure_operation(str(name)):
        yield f"bring the TensorFlow operation {name}, which may do more than compute"


def _tf_method(config: dict[str, Any], is_own: Any) -> Iterator[Deed]:
    method = str(config.get("method_name", config.get("attr_name")))
    if config.get("cls_symbol", "RaggedTensor") != "RaggedTensor" or not (
        _METHODS.fullmatch(method)
    ):
        yield f"call the method {method!r}, which may do more than compute"


def _python(config: dict[str, Any], is_own: Any) -> Iterator[Deed]:
    function = config.get("function")
    if isinstance(function, dict):  # which is looked at
        carried = function.get("class_name") == "__lambda__"
    else:
        carried = not is_own(function)
    if carried:
        yield f"{_CARRIED}, in the Lambda layer {config.get('name')!r}"


def _dropout(config: dict[str, Any], is_own: Any) -> Iterator[Deed]:
    # tf_keras puts all that the module holds among its own globals.
    if "dropout_fn" in config:
        yield f"call a function of the module {config.get('dropout_fn_module')!r}"


def _refused(config: dict[str, Any], is_own: Any) -> Iterator[Deed]:
    yield f"make the layer {config.get('name')!r} of a class that can hold any code"


# Of layers that may hold more than layers, by the name of their class.
_RULES: dict[str, Rule] = {
    "ClassMethod": _tf_method,
    "DeviceWrapper": _refused,
    "DropoutWrapper": _dropout,
    "FlaxLayer": _refused,
    "InstanceMethod": _tf_method,
    "InstanceProperty": _tf_method,
    "JaxLayer": _refused,
    "Lambda": _python,
    "ModuleWrapper": _refused,
    "ReloadedLayer": _refused,
    "ResidualWrapper": _refused,
    "TFOpLambda": _tf_function,
    "TFSMLayer": _refused,
    "TensorFlowOpLayer": _tf_operation,
    "TorchModuleWrapper": _refused,
}
