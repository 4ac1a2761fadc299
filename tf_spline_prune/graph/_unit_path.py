"""The way of a unit from the layer that makes it to the layers that read it."""

from dataclasses import dataclass

from tf_spline_prune.compat import Call, activation_name
from tf_spline_prune.graph._axes import TensorAxes, channel_axis, norm_axis
from tf_spline_prune.graph._facts import Group
from tf_spline_prune.graph.rules._elementwise import is_homogeneous_activation
from tf_spline_prune.graph.rules._registry import Rule

# Layers that apply one affine map a unit, and then an activation.
_PLAIN = ("Conv", "Dense", "Depthwise", "Separable")


@dataclass(frozen=True, eq=False)
class Step:
    """One call of the walk, with what went in and what came out."""

    call: Call
    rule: Rule | None
    inputs: list[TensorAxes]
    outputs: list[TensorAxes]


@dataclass(frozen=True)
class UnitPath:
    """What lies between the producer of a group's units and their consumers.

    Attributes:
        norms: For each layer that makes units (by path), the paths of the
            BatchNormalizations that follow it at once, before any other use.
        activation: For each such layer, the name of the call at which its units
            meet their first activation, where there is just one such call.
        mergeable: Whether a unit that is a positive multiple of another can be
            folded into the readers' weights without loss: a single layer makes
            the units, and all that follows hands positive scales on.
    """

    norms: dict[str, tuple[str, ...]]
    activation: dict[str, str | None]
    mergeable: bool


class Walk:
    """The steps of the walk, in order, and who uses which tensor."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._users: dict[int, list[Step]] = {}

    def add(self, step: Step) -> None:
        """Append a step."""
        self.steps.append(step)
        for value in {id(value): value for value in step.inputs}:
            self._users.setdefault(value, []).append(step)

    def users(self, tensor: TensorAxes) -> list[Step]:
        """List the steps that take a tensor in."""
        return self._users.get(id(tensor), [])


def follow(group: Group, walk: Walk) -> UnitPath:
    """Follow the units of a group through the walk.

    Args:
        group: A group of the channel graph.
        walk: The walk.

    Returns:
        The path.
    """
    kernels = {m.path for m in group.members if m.name.endswith("kernel")}
    readers = {m.path for m in group.consumers}
    norms: dict[str, tuple[str, ...]] = {}
    activation: dict[str, str | None] = {}
    # A separable layer filters its input's units one by one before it reads them.
    filtering = {m.path for m in group.members if m.name == "depthwise_kernel"}
    mergeable = len(group.producers) == 1 and filtering.isdisjoint(readers)
    made = False
    for step in walk.steps:
        path = step.call.path
        if path not in kernels or (path in readers and not _makes(group, path)):
            continue
        if path in norms:  # a shared layer: its uses may go different ways
            mergeable = False
            continue
        if not step.call.kind.startswith(_PLAIN):
            norms[path], activation[path], mergeable = (), None, False
            continue
        folded, tail = _norms(step, walk)
        norms[path] = folded
        activation[path] = _activation(step, tail, walk)
        if _makes(group, path):
            made = True
            linear = is_linear(step)
            mergeable = (
                mergeable
                and (linear or not folded)
                and is_homogeneous_activation(step.call)
                and _hands_scales_on(tail, walk, readers)
            )
    return UnitPath(norms, activation, mergeable and made)


def is_linear(step: Step) -> bool:
    """Return whether a layer has no activation of its own."""
    activation = getattr(step.call.layer, "activation", None)
    return activation is None or activation_name(activation) == "linear"


def _makes(group: Group, path: str) -> bool:
    return any(member.path == path for member in group.producers)


def _norms(step: Step, walk: Walk) -> tuple[tuple[str, ...], TensorAxes]:
    """Collect the BatchNormalizations that a linear layer's output runs into."""
    folded: list[str] = []
    tensor = step.outputs[0]
    units = channel_axis(step.call, tensor.rank)
    while is_linear(step):
        users = walk.users(tensor)
        if len(users) != 1 or users[0].call.kind != "BatchNormalization":
            break
        if norm_axis(users[0].call, tensor.rank) != units:
            break
        folded.append(users[0].call.path)
        tensor = users[0].outputs[0]
    return tuple(folded), tensor


def _activation(step: Step, tail: TensorAxes, walk: Walk) -> str | None:
    if not is_linear(step):
        return step.call.name
    users = walk.users(tail)
    return users[0].call.name if len(users) == 1 else None


def _hands_scales_on(tensor: TensorAxes, walk: Walk, readers: set[str]) -> bool:
    """Return whether a scale of a unit reaches every reader unchanged."""
    for step in walk.users(tensor):
        if step.call.path in readers:
            continue
        if step.rule is None or not step.rule.homogeneous(step.call):
            return False
        if not all(_hands_scales_on(out, walk, readers) for out in step.outputs):
            return False
    return True
