"""`KernelAxes`: which axes of a weight tensor are its inputs and its outputs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune.compat import (
    KERNEL_KINDS,
    MaskSlot,
    kind_of,
    mask_slots,
    require_flavour,
)
from tf_spline_prune.errors import ModelError
from tf_spline_prune.graph._selection import Nameable, Selector


def require_slots(model: Any) -> list[MaskSlot]:
    """List the masked weights of a model, of which there must be some.

    Args:
        model: A model of either flavour.

    Returns:
        The slots.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If nothing is masked.
    """
    require_flavour(model)
    slots = mask_slots(model)
    if not slots:
        raise ModelError(
            "This model has no masks. Make a masked copy with "
            f"`tsp.wrap_with_masks(model)`. Received: model {model.name!r}"
        )
    return slots


def chosen_layers(
    layers: Mapping[str, Any], selector: Selector, barred: Mapping[str, str]
) -> set[str]:
    """Find the layers that a selector means.

    Args:
        layers: The layers by path.
        selector: `None` for all; a path or name, a regular expression that matches
            paths whole, a list of these, or a function of the layer.
        barred: For the layers that cannot be meant, the reasons.

    Returns:
        Paths.

    Raises:
        ValueError: If a name means nothing, or only layers that are barred.
        TypeError: If it is a schedule.
    """
    if any(base.__name__ == "PruningSchedule" for base in type(selector).__mro__):
        raise TypeError(
            "`layers` chooses layers, and masks take no schedule: give it to the "
            "callback that moves them, `tsp.MaskPruning(schedule)`. Received: layers="
            f"{type(selector).__name__}"
        )
    return nameable(layers, barred).chosen(selector)


def nameable(layers: Mapping[str, Any], barred: Mapping[str, str]) -> Nameable:
    """Return the layers of a masked model as users name them; see `chosen_layers`."""
    return Nameable(
        {path: layer for path, layer in layers.items() if path not in barred},
        "can be masked",
        barred,
        "The layer {name!r} cannot be masked: {reason}.",
    )


def by_path(slots: Iterable[MaskSlot], asked: Any, argument: str, what: str) -> Any:
    """Translate names and regular expressions into paths.

    Args:
        slots: Masked weights.
        asked: A dictionary from names, paths or regular expressions to what the
            layers get; or what all of them get, which stays.
        argument: Name of the argument that holds it, for the messages.
        what: What they get, for the messages.

    Raises:
        ValueError: If a name means nothing, or a layer gets two things.
    """
    if not isinstance(asked, Mapping):
        return asked
    layers = {slot.path: slot.layer for slot in slots}
    return nameable(layers, {}).each(asked.items(), argument, what)


@dataclass(frozen=True)
class KernelAxes:
    """The input and the output axis of a weight tensor.

    The defaults are those of Dense kernels `[in, out]` and of convolution kernels
    `[..., in, out]`. Transposed convolutions have `[..., out, in]`, so
    `Layout(input_axis=-1, output_axis=-2)`.

    Args:
        input_axis: The axis along which an output sums its inputs.
        output_axis: The axis of the units.
    """

    input_axis: int = -2
    output_axis: int = -1

    def inputs_by_outputs(self, tensor: np.ndarray) -> np.ndarray:
        """View a tensor with its inputs and outputs as the last two axes.

        Args:
            tensor: Array of rank 2 or more.

        Returns:
            A view of shape `(..., inputs, outputs)`.

        Raises:
            ValueError: If the tensor has no such two axes.
        """
        axes = (self.input_axis, self.output_axis)
        rank = tensor.ndim
        if rank < 2:
            raise ValueError(
                "Blocks and m:n patterns need a tensor with inputs and outputs, of "
                f"rank 2 or more. Received: a tensor of shape {tensor.shape}"
            )
        inside = all(-rank <= axis < rank for axis in axes)
        if not inside or axes[0] % rank == axes[1] % rank:
            raise ValueError(
                "`input_axis` and `output_axis` must be two axes of the tensor. "
                f"Received: {self} for a tensor of shape {tensor.shape}"
            )
        return np.moveaxis(tensor, axes, (-2, -1))

    def restored(self, view: np.ndarray) -> np.ndarray:
        """Put the axes of such a view back.

        Args:
            view: Array of shape `(..., inputs, outputs)`.

        Returns:
            Array with the axes of the tensor, contiguous.
        """
        axes = (self.input_axis, self.output_axis)
        return np.ascontiguousarray(np.moveaxis(view, (-2, -1), axes))


def kernel_axes_of(slot: MaskSlot) -> KernelAxes:
    """Return which axes of a masked weight hold inputs and outputs.

    Where there are several of either, the last one counts: entries along it lie next
    to each other.

    Args:
        slot: A masked weight.

    Returns:
        Its layout.
    """
    kind = kind_of(slot.owner)
    if KERNEL_KINDS.get(kind) == "transposed":
        return KernelAxes(-1, -2)
    if kind == "EinsumDense":
        given, _, made = slot.owner.equation.replace(" ", "").partition("->")
        taken, kernel = given.split(",")
        summed = [a for a, c in enumerate(kernel) if c not in made]
        units = [a for a, c in enumerate(kernel) if c in made and c not in taken]
        if summed and units:
            return KernelAxes(summed[-1], units[-1])
    return KernelAxes()
