"""The demo's model behind FastAPI and pydantic, as a careful engineer writes it: metrics, and a log line a request.

MODEL=demo/models/people/1 uvicorn service:app
"""

from __future__ import annotations

import json
import logging
import os
import time

import numpy as np
import orjson
import tensorflow as tf
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

MEAN, STD = np.array([40, 50_000, 0.5], np.float32), np.array([12, 30_000, 0.3], np.float32)
LABELS = ("no", "yes")

logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger("service")
REQUESTS = Counter("requests", "Requests.", ["code"])
ROWS = Counter("rows", "Rows.", ["outcome"])
SECONDS = Histogram("request_seconds", "Time to the answer.")


class Instance(BaseModel):
    model_config = ConfigDict(strict=True)
    age: float = Field(ge=0, le=150, allow_inf_nan=False)
    income: float = Field(ge=0, allow_inf_nan=False)
    score: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False)


class Body(BaseModel):
    instances: list[Instance] = Field(min_length=1, max_length=1024)


app = FastAPI()
model = tf.saved_model.load(os.environ["MODEL"])
serve = model.signatures["serving_default"]
serve(inputs=tf.zeros((1, 3)))


def done(code: int, rows: int, answer: object, began: float, outcome: str) -> Response:
    """Count, log and write an answer."""
    seconds = time.perf_counter() - began
    ROWS.labels(outcome).inc(rows)
    REQUESTS.labels(str(code)).inc()
    SECONDS.observe(seconds)
    log.info(json.dumps({"code": code, "rows": rows, "ms": round(1000 * seconds, 3)}))
    return Response(orjson.dumps(answer), code, media_type="application/json")


@app.post("/predict")
async def predict(body: Body) -> Response:
    began = time.perf_counter()
    rows = [(row.age, row.income, row.score) for row in body.instances]
    features = (np.array(rows, np.float32) - MEAN) / STD
    probabilities = serve(inputs=tf.constant(features))["probabilities"].numpy()
    classes = probabilities.argmax(axis=1)
    predictions = [
        {
            "probabilities": own,
            "probabilities_class": class_,
            "probabilities_label": LABELS[class_],
            "probabilities_score": own[class_],
        }
        for own, class_ in zip(probabilities.tolist(), classes.tolist(), strict=True)
    ]
    return done(200, len(rows), {"predictions": predictions}, began, "predicted")


@app.exception_handler(RequestValidationError)
async def refused(request: Request, error: RequestValidationError) -> Response:
    faults = [{"index": fault["loc"], "reason": fault["type"]} for fault in error.errors()[:100]]
    return done(
        400, len(faults), {"error": f"{len(faults)} faults", "details": faults}, time.perf_counter(), "rejected"
    )


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.get("/metrics")
async def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
