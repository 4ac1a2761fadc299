"""Every error and warning class of the package, in one place.

Each class derives from the built-in class that a caller would expect, so that
`except ValueError` keeps working for users who do not know this module.
"""

import sys
import types
import warnings


class ArgumentError(TypeError, ValueError):
    """An argument of a wrong type; `except ValueError` catches it as well."""


class UsageError(ValueError):
    """A command line whose arguments do not go together."""


class FlavourError(TypeError):
    """A model or layer of the wrong Keras flavour, or of none."""


class ModelError(ValueError):
    """A model that cannot be read: unbuilt, untraceable, or with NaN weights."""


class ProbeError(ValueError):
    """Probe inputs that are empty, misshapen or not finite."""


class RegionLimitError(RuntimeError):
    """A slice of more regions than it may have; the message says how far it got."""


class CalibrationError(ValueError):
    """Calibration data that are empty, misshapen, not finite, or lack labels."""


class CriterionError(ValueError):
    """A criterion that does not give one finite score per unit, or hangs on chance."""


class PlanError(ValueError):
    """A pruning plan that is broken, or was made for another model."""


class BudgetError(ValueError):
    """A pruning target that no choice of units can meet."""


class VerificationError(RuntimeError):
    """A shrunk model that does not compute what it should."""


class RuleError(ValueError):
    """A rule of the channel graph that does not say what its layer does."""


class ExportError(RuntimeError):
    """A model that cannot be exported, or answers differently once it is."""


class DatasetError(RuntimeError):
    """A data set that cannot be had here and now; the message says what to do."""


class SparsityError(RuntimeError):
    """Training that ended below the sparsity that its schedule was to reach."""


class RescaleError(RuntimeError):
    """Rescaled weights that let a network's signal die out or explode."""


class SplinePruneWarning(UserWarning):
    """The base class of all warnings of this package."""


class NothingPrunedWarning(SplinePruneWarning):
    """A plan that removes no unit; the message says why."""


class InexactWarning(SplinePruneWarning):
    """A result that computes nearly what the model does; the message says how near."""


class BlindVerificationWarning(SplinePruneWarning):
    """A comparison that could not have seen a fault; the message says why."""


class CalibrationWarning(SplinePruneWarning):
    """Calibration data that are too few for what they are asked."""


class DataRangeWarning(SplinePruneWarning):
    """Data of another range than the model expects, or on which it only guesses."""


class SmoothActivationWarning(SplinePruneWarning):
    """A smooth activation has no knot; the sign of its input stands in."""


class UnreadActivationWarning(SplinePruneWarning):
    """An activation whose knots are not known; it is left out of the codes."""


class SliceWarning(SplinePruneWarning):
    """A slice that could not be taken while training; the message says why."""


class LearningRateDropWarning(SplinePruneWarning):
    """A learning-rate drop, not learning, made a distance fall."""


class BackupWarning(SplinePruneWarning):
    """A detector's backup does not fit the resumed run and is not used."""


class InitializationWarning(SplinePruneWarning):
    """Pruning before training that may mislead; the message says why."""


class SparsityWarning(SplinePruneWarning):
    """Masks that stay, or will stay, below the sparsity that was asked for."""


class RescaleWarning(SplinePruneWarning):
    """Rescaled weights that let a network's signal die out or explode."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line outside of this package that led here.

    Args:
        message: What to say.
        category: The class of warning.
    """
    package = __name__.partition(".")[0]
    frame, level = sys._getframe(1), 2
    while frame.f_back and _root(frame) == package:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _root(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
