"""The shapes of rows on which contenders are compared: their columns, their rows, and their model.

`people` is the shape of most benchmarks: an id and three numbers. In the others something else takes the time: many
columns (`wide-100`, `wide-1000`), categories that the model looks up (`strings`), long text (`text`), and the model
itself (`heavy`, with the rows of `wide-100`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

FIRST_ID = 300_000_000
"""Nine digits and a varint of five bytes for every row, so that all TFRecord records have the same length."""

CATEGORIES = [f"category-{n}" for n in range(100)]
"""Values of each column of the shape `strings`."""

STRING_COLUMNS = [f"c{n:02}" for n in range(20)]

WORDS_IN_A_TEXT = (50, 550)
"""Least and most words of a text: two kilobytes on average."""

Rows = Callable[[np.random.Generator, int], dict[str, Any]]
"""Returns columns of so many random rows; `sample_rows` adds the id."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """The columns of a data set, and what a job does with them.

    Attributes:
      rows: makes random rows.
      columns: the columns of the job file; `id` is added.
      inputs: the inputs of the job file.
      model: the name of its model in `make_model.py`; None for the demo's, of which there are two.
      most_rows: more rows show nothing more.
    """

    rows: Rows
    columns: Mapping[str, Any]
    inputs: Mapping[str, Any]
    model: str | None
    most_rows: int

    def sample_rows(self, rng: np.random.Generator, first: int, rows: int) -> pl.DataFrame:
        """Return good rows whose ids, int64, begin with that of row `first` of the data set."""
        return pl.DataFrame({"id": np.arange(FIRST_ID + first, FIRST_ID + first + rows), **self.rows(rng, rows)})


def _people(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    """age int64, income float64 with two decimals, score float64 with six."""
    return {
        "age": rng.integers(18, 96, rows),
        "income": rng.integers(0, 20_000_000, rows) / 100,
        "score": rng.integers(0, 1_000_001, rows) / 1_000_000,
    }


def _strings(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    categories = pl.Series(CATEGORIES)
    return {name: categories[rng.integers(0, len(CATEGORIES), rows)] for name in STRING_COLUMNS}


def _texts(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    """Texts of words with commas, quotes and line breaks between them, which CSV puts in quotes."""
    letters = rng.integers(ord("a"), ord("z") + 1, (5_000, 12), np.uint8)
    words = [bytes(word[: 2 + n % 11]).decode() for n, word in enumerate(letters)]
    words += [f"{word}," for word in words[:500]] + [f'"{word}"' for word in words[:50]] + ["end.\n"] * 50
    lengths = rng.integers(*WORDS_IN_A_TEXT, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    chosen = pl.Series(words)[rng.integers(0, len(words), offsets[-1])]
    lists = pa.LargeListArray.from_arrays(offsets, chosen.to_arrow())
    return {"text": pl.Series(lists).list.join(" ")}


def _wide(columns: int, model: str, most_rows: int) -> Shape:
    names = [f"x{n:03}" for n in range(columns)]

    def rows(rng: np.random.Generator, rows: int) -> dict[str, Any]:
        values = rng.normal(size=(columns, rows)).round(4)
        return dict(zip(names, values, strict=True))

    return Shape(rows, {name: {"dtype": "float32"} for name in names}, {"inputs": {"pack": names}}, model, most_rows)


SHAPES = {
    "people": Shape(
        _people,
        {
            "age": {"dtype": "float32", "range": [0, 150]},
            "income": {"dtype": "float32", "range": [0, None]},
            "score": {"dtype": "float32", "range": [0, 1]},
        },
        {
            "inputs": {
                "pack": ["age", "income", "score"],
                "standardize": {"mean": [40, 5e4, 0.5], "std": [12, 3e4, 0.3]},
            }
        },
        model=None,
        most_rows=100_000_000,
    ),
    "wide-100": _wide(100, "wide-100", 1_000_000),
    "wide-1000": _wide(1_000, "wide-1000", 100_000),
    "strings": Shape(
        _strings,
        {name: {"dtype": "string"} for name in STRING_COLUMNS},
        {},  # each column is an input of the same name
        "strings",
        2_000_000,
    ),
    "text": Shape(_texts, {"text": {"dtype": "string"}}, {}, "text", 200_000),
    "heavy": _wide(100, "heavy", 40_000),
}
