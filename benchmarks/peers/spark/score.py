"""The peer: Spark on one machine, with the function for inference that its documentation has for deep learning.

https://spark.apache.org/docs/latest/api/python/reference/api/pyspark.ml.functions.predict_batch_udf.html
"""

import os
import pathlib
import sys

import numpy as np
from people import FEATURES, MEAN, STD, parse_arguments, quiet_tensorflow
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import FloatType


def make_predict(path: str):
    quiet_tensorflow()
    import tensorflow as tf

    model = tf.saved_model.load(path)
    signature = model.signatures["serving_default"]

    def predict(age: np.ndarray, income: np.ndarray, score: np.ndarray) -> np.ndarray:
        inputs = tf.constant((np.stack([age, income, score], axis=1) - MEAN) / STD)
        return signature(inputs=inputs)["prediction"].numpy()

    predict.model = model  # which the signature does not keep alive
    return predict


if __name__ == "__main__":
    args = parse_arguments(__doc__)
    os.environ["PYSPARK_PYTHON"] = sys.executable  # of the workers
    spark = SparkSession.builder.master(f"local[{args.threads}]").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    score = predict_batch_udf(lambda: make_predict(args.model), return_type=FloatType(), batch_size=8_192)
    schema = "id long, age float, income float, score float"
    people = spark.read.csv(str(pathlib.Path(args.pattern).parent), header=True, schema=schema)
    people.select("id", score(*FEATURES).alias("prediction")).write.parquet(args.out)
    spark.stop()
