"""Train a small model on data like the demo's, and export it as a SavedModel.

    python examples/demo/make_model.py demo/models/people/1

The model predicts who will answer an offer: a dense network, 3-32-16-1, over age, income and score. Its signature
`serving_default` takes `inputs`, float32 [batch, 3], standardized with the means and deviations in `job.yaml`, and
returns `probabilities`, float32 [batch, 2]: no, yes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
from collections.abc import Iterator

import make_data
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextlib.contextmanager
def hidden_stderr() -> Iterator[None]:
    """Discard the standard error output of native code; exceptions still propagate."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# TensorFlow 2.21 logs notes on drivers and oneDNN during import, at any log level.
with hidden_stderr():
    import tensorflow as tf

# The same numbers as in job.yaml: a model and its job must agree on them.
MEAN = np.array([40, 5e4, 0.5], np.float32)
STD = np.array([12, 3e4, 0.3], np.float32)

ROWS = 65_536
BATCH_ROWS = 1_024
STEPS = 400
SEED = 11


class Network(tf.Module):
    """Dense layers with ReLU between them, and one logit."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.kernels = [tf.Variable(tf.random.normal(pair, stddev=(2 / pair[0]) ** 0.5, seed=SEED)) for pair in pairs]
        self.biases = [tf.Variable(tf.zeros(width)) for _, width in pairs]

    def logit(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the logit of `yes`, float32 [batch], for standardized `inputs`, float32 [batch, 3]."""
        hidden = inputs
        for kernel, bias in zip(self.kernels[:-1], self.biases[:-1], strict=True):
            hidden = tf.nn.relu(hidden @ kernel + bias)
        return tf.squeeze(hidden @ self.kernels[-1] + self.biases[-1], axis=1)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="inputs")])
    def serve(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        yes = tf.sigmoid(self.logit(inputs))
        return {"probabilities": tf.stack([1 - yes, yes], axis=1)}


def labelled_people(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return standardized features, float32 [rows, 3], and whether each person answered, float32 [rows]."""
    people = make_data.sample_people(rng, ROWS)
    features = np.stack([people["age"], people["income"], people["score"]], axis=1).astype(np.float32)
    features = (features - MEAN) / STD
    age, income, score = features.T
    chance = 1 / (1 + np.exp(-(1.6 * score + 0.8 * income - 0.5 * age**2 + 0.2)))
    return features, (rng.random(ROWS) < chance).astype(np.float32)


def train(network: Network, features: np.ndarray, answered: np.ndarray) -> float:
    """Fit by gradient descent with momentum; return the mean loss of the last steps."""
    variables = network.trainable_variables
    speeds = [tf.Variable(tf.zeros_like(variable)) for variable in variables]

    @tf.function
    def step(inputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, network.logit(inputs))
            loss = tf.reduce_mean(losses)
        for variable, speed, gradient in zip(variables, speeds, tape.gradient(loss, variables), strict=True):
            speed.assign(0.9 * speed - 0.02 * gradient)
            variable.assign_add(speed)
        return loss

    losses = []
    for start in np.arange(STEPS) * BATCH_ROWS % ROWS:
        stop = start + BATCH_ROWS
        losses.append(float(step(tf.constant(features[start:stop]), tf.constant(answered[start:stop]))))
    return float(np.mean(losses[-20:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where the SavedModel goes; its last part is the version, a number")
    folder = parser.parse_args().folder

    tf.random.set_seed(SEED)
    network = Network((3, 32, 16, 1))
    loss = train(network, *labelled_people(np.random.default_rng(SEED)))
    tf.saved_model.save(network, folder, signatures={"serving_default": network.serve})
    print(f"A model, trained on {ROWS:,} people to a loss of {loss:.3f}: {folder}")


if __name__ == "__main__":
    main()
