"""`export_onnx`: a model as an `.onnx` file."""

import importlib
from typing import Any

from tf_spline_prune._checks import Integer, Path, checked
from tf_spline_prune._files import PathLike, atomic_file, with_ending
from tf_spline_prune.errors import ExportError
from tf_spline_prune.export._comparison import Arrays, compare, unmasked
from tf_spline_prune.export._export_report import ExportReport, description
from tf_spline_prune.litert import SIGNATURE, Servable
from tf_spline_prune.litert._convert import changing
from tf_spline_prune.pruning import PruningPlan
from tf_spline_prune.pruning._remove_units import PLAN


@checked(file=Path(), opset=Integer(7, 64), plan=[PLAN, None])
def export_onnx(
    model: Any, file: PathLike, *, opset: int = 18, plan: PruningPlan | None = None
) -> ExportReport:
    """Export a model as an ONNX file, in float32.

    The file is written under a temporary name, run by ONNX Runtime and compared with
    the model in inference mode on random inputs; only then does it take its place,
    and an earlier file of that name is replaced. Inputs and outputs bear the names
    that the other formats give them, the batch axis stays open. Masks are stripped.

    Needs the extra `onnx`.

    Args:
        model: A built model of either flavour.
        file: Where to write; the name ends in `.onnx`. Missing folders are made.
        opset: Version of the ONNX operator set. Defaults to `18`.
        plan: The plan that the model was pruned by, to be kept in the metadata.
            Defaults to `None`.

    Returns:
        The path, the sizes and the largest difference.

    Raises:
        ValueError: If the name does not end in `.onnx`.
        ImportError: If the extra is not installed.
        FlavourError: If `model` is no Keras model.
        ModelError: If it is not built, cannot be traced, or has weights that are
            not finite.
        ExportError: If it cannot be converted or run, or its outputs differ by more
            than 1e-4, relative to the largest output, or if the model is random or
            has a state, and the file cannot be. Nothing is left behind.
        OSError: If the file cannot be written. Nothing is left behind.

    Example:

    ```python
    print(tsp.export_onnx(small, "fashion.onnx"))
    ```

    Source: the documentation of tf2onnx, which converts, and of ONNX Runtime.
    """
    target = with_ending(file, ".onnx")
    for name in ("tf2onnx", "onnx", "onnxruntime"):
        _module(name)
    servable = Servable(unmasked(model))
    with atomic_file(target) as temporary:
        try:
            _check_names(servable)
            converted = _converted(servable, opset)
            session = _session(converted.SerializeToString())
            comparison = compare(servable, lambda inputs: _answer(session, inputs))
        except (OSError, ExportError):
            raise
        except Exception as error:  # the converter raises what it likes
            if servable.varies():
                raise ExportError(changing("ONNX", servable, error)) from error
            raise ExportError(
                "The model could not be converted to ONNX, or not run from there: a "
                "layer has no counterpart. Replace the layers that it names, or use "
                f"`export_saved_model`. Received: model {servable.name!r}, for which "
                f"it raised {type(error).__name__}: {error}"
            ) from error
        ends = {"inputs": servable.inputs, "outputs": _outputs(session)}
        text = description(servable, {SIGNATURE: ends}, comparison, plan)
        _module("onnx.helper").set_model_props(converted, {"tf_spline_prune": text})
        temporary.write_bytes(converted.SerializeToString())
    return ExportReport.of(target, comparison, renamed=servable.renamed)


def _check_names(servable: Servable) -> None:
    both = sorted(set(servable.inputs) & set(servable.outputs))
    if both:
        raise ExportError(
            "In an ONNX file no output can have the name of an input. Give the model a "
            "dictionary of outputs with other names, or drop outputs that are inputs. "
            f"Received: model {servable.name!r} with {both} as both"
        )


def _converted(servable: Servable, opset: int) -> Any:
    import tensorflow as tf

    specs = [
        tf.TensorSpec(shape, dtype, name)
        for name, (shape, dtype) in servable.inputs.items()
    ]
    function = tf.function(servable.__call__, autograph=False, input_signature=specs)
    convert = _module("tf2onnx.convert").from_function
    return convert(function, input_signature=specs, opset=opset)[0]


def _session(content: bytes) -> Any:
    runtime = _module("onnxruntime")
    return runtime.InferenceSession(content, providers=["CPUExecutionProvider"])


def _answer(session: Any, inputs: Arrays) -> Arrays:
    names = [end.name for end in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _outputs(session: Any) -> dict[str, Any]:
    return {
        end.name: (
            [size if isinstance(size, int) else None for size in end.shape],
            end.type.removeprefix("tensor(").removesuffix(")"),
        )
        for end in session.get_outputs()
    }


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            "ONNX files need tf2onnx, onnx and onnxruntime. Install them with "
            f'`pip install "tf-spline-prune[onnx]"`. Received: {error}'
        ) from error
