"""The peer: the plainest script that does the job, for rows that fit in memory, without any check.

python benchmarks/plain_script.py 'bench-data/csv/*.csv' --model bench-data/models/small/1 --out out
"""

import pathlib

import polars as pl
import tensorflow as tf
from people import FEATURES, MEAN, STD, parse_arguments

args = parse_arguments(__doc__)
people = pl.read_csv(args.pattern)
signature = tf.saved_model.load(args.model).signatures["serving_default"]
inputs = (people.select(FEATURES).cast(pl.Float32).to_numpy() - MEAN) / STD
prediction = signature(inputs=tf.constant(inputs))["prediction"].numpy()
out = pathlib.Path(args.out)
out.mkdir(parents=True, exist_ok=True)
people.select("id", prediction=prediction).write_parquet(out / "part.parquet")
