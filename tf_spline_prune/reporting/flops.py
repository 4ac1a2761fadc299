"""`training_flops`: what a training costs."""

from tf_spline_prune._checks import Integer, Real, checked


@checked(
    forward_flops=Real(0), num_images=Integer(0, 2**62), epochs=Real(0), factor=Real(0)
)
def training_flops(
    forward_flops: float, num_images: int, epochs: float, factor: float = 3
) -> float:
    """Count the floating-point operations of a training.

    A backward pass costs about two forward passes, hence the factor 3.

    Args:
        forward_flops: Operations of one forward pass of one input; a
            multiply-accumulate is two, so `2 * tsp.cost(model).macs`.
        num_images: Number of inputs in an epoch.
        epochs: Number of epochs.
        factor: Passes' worth of work a training step.

    Returns:
        The number of operations.

    Raises:
        ValueError: If an argument is negative.

    Example:

    ```python
    tsp.training_flops(3.64e9, 1_281_167, 90)     # 1.259e18: ResNet-18, ImageNet
    ```

    Source: the accounting of You et al., "Drawing Early-Bird Tickets", ICLR
    2020, table 3, which it reproduces.
    """
    return factor * forward_flops * num_images * epochs
