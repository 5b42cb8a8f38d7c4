"""The peer: Ray Data, with an actor class that holds the model, as its guide to offline inference recommends.

https://docs.ray.io/en/latest/data/batch_inference.html
"""

import os
import pathlib

import numpy as np
import ray
from people import FEATURES, MEAN, STD, parse_arguments, quiet_tensorflow


class Scorer:
    def __init__(self, path: str) -> None:
        quiet_tensorflow()
        import tensorflow as tf

        self._constant = tf.constant
        self._model = tf.saved_model.load(path)
        self._signature = self._model.signatures["serving_default"]

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        features = np.stack([batch[name] for name in FEATURES], axis=1).astype(np.float32)
        inputs = self._constant((features - MEAN) / STD)
        return {"id": batch["id"], "prediction": self._signature(inputs=inputs)["prediction"].numpy()}


if __name__ == "__main__":
    args = parse_arguments(__doc__)
    os.environ |= {"RAY_raylet_start_wait_time_s": "200"}  # on a slow machine the default is not enough
    ray.init(num_cpus=args.threads, include_dashboard=False, log_to_driver=False)
    people = ray.data.read_csv(str(pathlib.Path(args.pattern).parent))
    scored = people.map_batches(
        Scorer, fn_constructor_args=[args.model], batch_size=8_192, compute=ray.data.ActorPoolStrategy(size=1)
    )
    scored.write_parquet(args.out)
