"""The zoo's networks once more, in NumPy and float64, with masks put in by hand.

Nothing here asks the package anything. A network is a function of its input, its
weights by layer name, and a function that gives for a layer's name the 0/1 vector
of its units. The vectors are multiplied to the tensors right before each layer
that reads them, by knowledge of the architecture.
"""

import numpy as np


def weights_of(model):
    """Read the weights by layer name and short weight name, in float64."""
    return {
        layer.name: {
            str(w.name).rpartition("/")[2].partition(":")[0]: a.astype("float64")
            for w, a in zip(layer.weights, layer.get_weights(), strict=True)
        }
        for layer in model.layers
    }


def keep_nothing_out(weights):
    """Give the vectors of ones."""
    return lambda name: np.ones(_units(weights, name))


def keep_of(weights, removed):
    """Give the 0/1 vectors that the removed indices of each layer mean."""

    def keep(name):
        vector = np.ones(_units(weights, name))
        vector[removed.get(name, [])] = 0.0
        return vector

    return keep


def _units(weights, name):
    return weights[name]["kernel"].shape[-1]


def relu(x, top=np.inf):
    return np.clip(x, 0.0, top)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def dense(x, w):
    return x @ w["kernel"] + w.get("bias", 0.0)


def norm(x, w, epsilon=1e-3):
    scale = w["gamma"] / np.sqrt(w["moving_variance"] + epsilon)
    return (x - w["moving_mean"]) * scale + w["beta"]


def patches(x, size, stride, padding):
    """Give the windows of `x`, shape (n, h, w, size, size, c)."""
    if padding == "same":
        pads = []
        for length in x.shape[1:3]:
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads.append((total // 2, total - total // 2))
        x = np.pad(x, [(0, 0), *pads, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


def conv(x, w, stride=1, padding="same"):
    kernel = w["kernel"]
    seen = patches(x, kernel.shape[0], stride, padding)
    return np.einsum("nhwijc,ijcd->nhwd", seen, kernel) + w.get("bias", 0.0)


def depthwise(x, w):
    kernel = w.get("kernel", w.get("depthwise_kernel"))[..., 0]
    return np.einsum("nhwijc,ijc->nhwc", patches(x, 3, 1, "same"), kernel)


def pool(x, function):
    n, h, w, c = x.shape
    return function(x.reshape(n, h // 2, 2, w // 2, 2, c), axis=(2, 4))


def mlp(x, w, keep):
    x = relu(dense(x, w["first"]))
    x = relu(dense(x * keep("first"), w["second"]))
    return dense(x * keep("second"), w["head"])


def vgg(x, w, keep):
    def block(x, name):
        return relu(norm(conv(x, w[f"{name}_conv"]), w[f"{name}_bn"]))

    x = block(x, "a1") * keep("a1_conv")
    x = pool(block(x, "a2"), np.max) * keep("a2_conv")
    x = pool(block(x, "b1"), np.max) * keep("b1_conv")
    x = relu(dense(x.reshape(len(x), -1), w["fc"]))
    return dense(x * keep("fc"), w["head"])


def resnet(x, w, keep):
    def block(x, name, stride=1):
        return norm(conv(x, w[f"{name}_conv"], stride), w[f"{name}_bn"])

    stream = keep("stem_conv")  # of the stem and the first block
    x = relu(block(x, "stem"))
    for i, stride in enumerate([1, 2, 1]):
        y = relu(block(x * stream, f"r{i}a", stride))
        y = block(y * keep(f"r{i}a_conv"), f"r{i}b")
        if stride > 1:
            x = block(x * stream, f"r{i}s", stride)
            stream = keep(f"r{i}s_conv")  # of the second and third block
        x = relu(y + x)
    return dense(x.mean(axis=(1, 2)) * stream, w["head"])


def preact_resnet(x, w, keep):
    stream = keep("stem")
    x = conv(x, w["stem"])
    for i, stride in enumerate([1, 2]):
        y = relu(norm(x, w[f"p{i}_bn1"])) * stream
        if stride > 1:
            x = conv(y, w[f"p{i}_s"], stride, "valid")
            stream = keep(f"p{i}_s")
        y = relu(norm(conv(y, w[f"p{i}_c1"], stride), w[f"p{i}_bn2"]))
        x = x + conv(y * keep(f"p{i}_c1"), w[f"p{i}_c2"])
    x = relu(norm(x, w["last_bn"])).mean(axis=(1, 2))
    return dense(x * stream, w["head"])


def densenet(x, w, keep):
    x, line = conv(x, w["stem"]), keep("stem")
    for i in range(3):
        y = conv(relu(norm(x, w[f"d{i}_bn"])) * line, w[f"d{i}_conv"])
        x = np.concatenate([x, y], axis=-1)
        line = np.concatenate([line, keep(f"d{i}_conv")])
    x = conv(relu(norm(x, w["t_bn"])) * line, w["transition"])
    x = pool(x, np.mean) * keep("transition")
    return dense(x.reshape(len(x), -1), w["head"])


def mobilenet(x, w, keep):
    stream = keep("stem_conv")
    x = relu(norm(conv(x, w["stem_conv"], 2), w["stem_bn"]))
    for i in range(2):
        y = conv(x * stream, w[f"m{i}_expand"])
        y = relu(norm(y, w[f"m{i}_bn1"]), 6.0)
        y = relu(norm(depthwise(y, w[f"m{i}_dw"]), w[f"m{i}_bn2"]), 6.0)
        y = conv(y * keep(f"m{i}_expand"), w[f"m{i}_project"])
        x = x + norm(y, w[f"m{i}_bn3"])
    return softmax(dense(x.mean(axis=(1, 2)) * stream, w["head"]))


# Layers whose units are added to each other, so that they must go together.
STREAMS = {
    "resnet": [
        ["stem_conv", "r0b_conv"],
        ["r1b_conv", "r1s_conv", "r2b_conv"],
    ],
    "preact_resnet": [["stem", "p0_c2"], ["p1_s", "p1_c2"]],
    "mobilenet": [["stem_conv", "m0_project", "m1_project"]],
}
# Every layer that makes hidden units.
HIDDEN = {
    "mlp": ["first", "second"],
    "vgg": ["a1_conv", "a2_conv", "b1_conv", "fc"],
    "resnet": [
        *("stem_conv", "r0a_conv", "r0b_conv", "r1a_conv", "r1b_conv"),
        *("r1s_conv", "r2a_conv", "r2b_conv"),
    ],
    "preact_resnet": ["stem", "p0_c1", "p0_c2", "p1_s", "p1_c1", "p1_c2"],
    "densenet": ["stem", "d0_conv", "d1_conv", "d2_conv", "transition"],
    "mobilenet": [
        *("stem_conv", "m0_expand", "m0_project", "m1_expand", "m1_project"),
    ],
}
NETS = [mlp, vgg, resnet, preact_resnet, densenet, mobilenet]
