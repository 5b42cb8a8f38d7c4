"""Export the benchmarks' models: dense networks over three features, in two sizes.

    python benchmarks/make_model.py --size small bench-data/models/small/1

`small` is 3-64-32-1, 2,272 multiplications per row; `large` is 3-512-440-1, a hundred times as many. The signature
`serving_default` takes `inputs`, float32 [batch, 3], standardized, and returns `prediction`, float32 [batch]. The
weights are random: the speed of a model does not depend on them.
"""

from __future__ import annotations

import argparse
import itertools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

WIDTHS = {"small": (3, 64, 32, 1), "large": (3, 512, 440, 1)}


class Dense(tf.Module):
    """Dense layers with ReLU between them and a sigmoid at the end."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        tf.random.set_seed(5)
        pairs = list(itertools.pairwise(widths))
        self.kernels = [tf.Variable(tf.random.normal(pair, stddev=(2 / pair[0]) ** 0.5)) for pair in pairs]
        self.biases = [tf.Variable(tf.zeros(width)) for _, width in pairs]

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="inputs")])
    def serve(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        hidden = inputs
        for kernel, bias in zip(self.kernels[:-1], self.biases[:-1], strict=True):
            hidden = tf.nn.relu(hidden @ kernel + bias)
        logit = hidden @ self.kernels[-1] + self.biases[-1]
        return {"prediction": tf.sigmoid(tf.squeeze(logit, axis=1))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--size", choices=WIDTHS, default="small")
    args = parser.parse_args()
    model = Dense(WIDTHS[args.size])
    tf.saved_model.save(model, args.folder, signatures={"serving_default": model.serve})


if __name__ == "__main__":
    main()
