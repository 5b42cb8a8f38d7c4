"""The demo's model behind Flask, as a careful engineer writes it: every row checked, metrics, and a log line a request.

MODEL=demo/models/people/1 gunicorn service:app
"""

from __future__ import annotations

import json
import logging
import math
import os
import time

import numpy as np
import tensorflow as tf
from flask import Flask, Response, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

MEAN, STD = np.array([40, 50_000, 0.5], np.float32), np.array([12, 30_000, 0.3], np.float32)
LABELS = ("no", "yes")
RULES = {"age": (0, 150, None), "income": (0, math.inf, None), "score": (0, 1, 0.5)}  # low, high, default

logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger("service")
REQUESTS = Counter("requests", "Requests.", ["code"])
ROWS = Counter("rows", "Rows.", ["outcome"])
SECONDS = Histogram("request_seconds", "Time to the answer.")

app = Flask(__name__)
model = tf.saved_model.load(os.environ["MODEL"])
serve = model.signatures["serving_default"]
serve(inputs=tf.zeros((1, 3)))


def checked(instances: list) -> tuple[list, list]:
    """Return the rows as lists of numbers, and the faults of all rows."""
    rows, faults = [], []
    for index, instance in enumerate(instances):
        row = []
        for name, (low, high, default) in RULES.items():
            value = instance.get(name)
            if value is None:
                value = default
            if value is None:
                faults.append({"index": index, "column": name, "reason": "missing_value"})
            elif isinstance(value, bool) or not isinstance(value, int | float):
                faults.append({"index": index, "column": name, "reason": "wrong_type"})
            elif not (low <= value <= high and math.isfinite(value)):
                faults.append({"index": index, "column": name, "reason": "out_of_range"})
            row.append(value)
        rows.append(row)
    return rows, faults


@app.post("/predict")
def predict() -> Response:
    began = time.perf_counter()
    instances = request.get_json()["instances"]
    rows, faults = checked(instances)
    if faults:
        code, answer = 400, {"error": f"{len(faults)} faults", "details": faults[:100]}
        ROWS.labels("rejected").inc(len(rows))
    else:
        code = 200
        features = (np.array(rows, np.float32) - MEAN) / STD
        probabilities = serve(inputs=tf.constant(features))["probabilities"].numpy()
        classes = probabilities.argmax(axis=1)
        answer = {
            "predictions": [
                {
                    "probabilities": own,
                    "probabilities_class": class_,
                    "probabilities_label": LABELS[class_],
                    "probabilities_score": own[class_],
                }
                for own, class_ in zip(probabilities.tolist(), classes.tolist(), strict=True)
            ]
        }
        ROWS.labels("predicted").inc(len(rows))
    seconds = time.perf_counter() - began
    REQUESTS.labels(str(code)).inc()
    SECONDS.observe(seconds)
    log.info(json.dumps({"code": code, "rows": len(rows), "faults": len(faults), "ms": round(1000 * seconds, 3)}))
    return Response(json.dumps(answer), code, mimetype="application/json")


@app.get("/healthz")
def healthz() -> str:
    return "ok"


@app.get("/metrics")
def metrics() -> Response:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return Response(generate_latest(registry), mimetype=CONTENT_TYPE_LATEST)
