"""What the schedules demand of their steps."""

from tf_spline_prune._checks import Integer

STEP = Integer(0, 2**62)
# Also one before the training, at which nothing fires.
ANY_STEP = Integer(-(2**62), 2**62)


def check_range(begin_step: int, end_step: int) -> tuple[int, int]:
    """Check that two steps are in order; they may be equal.

    Args:
        begin_step: The first step.
        end_step: The last step.

    Returns:
        Both.

    Raises:
        ValueError: If they are out of order.
    """
    if end_step < begin_step:
        raise ValueError(
            "`end_step` must not come before `begin_step`. Received: "
            f"begin_step={begin_step}, end_step={end_step}"
        )
    return begin_step, end_step
