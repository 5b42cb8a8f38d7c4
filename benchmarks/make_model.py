"""Export the benchmarks' models, one for each shape of rows in `shapes.py`.

    python benchmarks/make_model.py --name small bench-data/models/small/1

`small` is a dense network 3-64-32-1, 2,272 multiplications per row; `large` is 3-512-440-1, a hundred times as many;
`heavy` is 100-1024-...-1024-1, 9.5 million, some seconds for ten thousand rows. Of these and of `wide-100` and
`wide-1000`, the signature `serving_default` takes `inputs`, float32 [batch, features], standardized, and returns
`prediction`, float32 [batch]. `strings` takes 20 categories by name, string [batch] each, and looks them up in tables;
`text` takes `text`, string [batch], and cuts it into words. The weights are random: the speed of a model does not
depend on them.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from shapes import CATEGORIES, STRING_COLUMNS

WIDTHS = {
    "small": (3, 64, 32, 1),
    "large": (3, 512, 440, 1),
    "wide-100": (100, 64, 32, 1),
    "wide-1000": (1_000, 64, 32, 1),
    "heavy": (100, *[1_024] * 10, 1),
}
EMBEDDED = 8
"""Values for which a category or word stands."""

BUCKETS = 10_000
"""Of words, by their hash."""


def random_variable(*shape: int) -> tf.Variable:
    return tf.Variable(tf.random.normal(shape, stddev=(2 / shape[0]) ** 0.5))


class Dense(tf.Module):
    """Dense layers with ReLU between them and a sigmoid at the end."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        tf.random.set_seed(5)
        self.kernels = [random_variable(*pair) for pair in itertools.pairwise(widths)]
        self.biases = [tf.Variable(tf.zeros(width)) for width in widths[1:]]
        self.serve = tf.function(self.predict, input_signature=self.inputs(widths[0]))

    def inputs(self, width: int) -> list[tf.TensorSpec]:
        return [tf.TensorSpec([None, width], tf.float32, name="inputs")]

    def predict(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        hidden = inputs
        for kernel, bias in zip(self.kernels[:-1], self.biases[:-1], strict=True):
            hidden = tf.nn.relu(hidden @ kernel + bias)
        logit = hidden @ self.kernels[-1] + self.biases[-1]
        return {"prediction": tf.sigmoid(tf.squeeze(logit, axis=1))}


class Strings(Dense):
    """A table of categories for each column, an embedding for each category, and dense layers."""

    def __init__(self) -> None:
        super().__init__((len(STRING_COLUMNS) * EMBEDDED, 64, 32, 1))
        keys = tf.lookup.KeyValueTensorInitializer(CATEGORIES, tf.range(len(CATEGORIES), dtype=tf.int64))
        self.tables = [tf.lookup.StaticVocabularyTable(keys, num_oov_buckets=1) for _ in STRING_COLUMNS]
        self.embeddings = [random_variable(len(CATEGORIES) + 1, EMBEDDED) for _ in STRING_COLUMNS]

    def inputs(self, width: int) -> list[tf.TensorSpec]:
        return [tf.TensorSpec([None], tf.string, name=name) for name in STRING_COLUMNS]

    def predict(self, *columns: tf.Tensor) -> dict[str, tf.Tensor]:
        embedded = [
            tf.gather(embedding, table.lookup(column))
            for column, table, embedding in zip(columns, self.tables, self.embeddings, strict=True)
        ]
        return super().predict(tf.concat(embedded, axis=1))


class Text(Dense):
    """The mean of the embeddings of a text's words, and dense layers."""

    def __init__(self) -> None:
        super().__init__((EMBEDDED, 64, 32, 1))
        self.embedding = random_variable(BUCKETS, EMBEDDED)

    def inputs(self, width: int) -> list[tf.TensorSpec]:
        return [tf.TensorSpec([None], tf.string, name="text")]

    def predict(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        words = tf.strings.to_hash_bucket_fast(tf.strings.split(text), BUCKETS)
        return super().predict(tf.reduce_mean(tf.gather(self.embedding, words), axis=1))


def main() -> None:
    names = [*WIDTHS, "strings", "text"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--name", choices=names, default="small")
    args = parser.parse_args()
    others = {"strings": Strings, "text": Text}
    model = others[args.name]() if args.name in others else Dense(WIDTHS[args.name])
    tf.saved_model.save(model, args.folder, signatures={"serving_default": model.serve})


if __name__ == "__main__":
    main()
