"""The peer: Daft, with a class whose batch method calls the model, as its guide to custom code recommends.

https://docs.daft.ai/en/stable/custom-code/cls/
"""

import os

import daft
import numpy as np
from daft import DataType, Series, col
from people import FEATURES, MEAN, STD, parse_arguments, quiet_tensorflow


@daft.cls
class Scorer:
    def __init__(self, path: str) -> None:
        quiet_tensorflow()
        import tensorflow as tf

        self._constant = tf.constant
        self._model = tf.saved_model.load(path)
        self._signature = self._model.signatures["serving_default"]

    @daft.method.batch(return_dtype=DataType.float32())
    def predict(self, age: Series, income: Series, score: Series) -> np.ndarray:
        features = np.stack([column.to_arrow().to_numpy() for column in (age, income, score)], axis=1)
        inputs = (features.astype(np.float32) - MEAN) / STD
        return self._signature(inputs=self._constant(inputs))["prediction"].numpy()


if __name__ == "__main__":
    args = parse_arguments(__doc__)
    scorer = Scorer(args.model)
    people = daft.read_csv(args.pattern)
    prediction = scorer.predict(*(people[name] for name in FEATURES))
    people.select(col("id"), prediction.alias("prediction")).write_parquet(args.out)
    os._exit(0)  # some of Daft's threads still run, and may abort an interpreter that ends in the usual way
