"""Write the demo's sample data: people in CSV shards, about one row in a hundred bad.

    python examples/demo/make_data.py demo/data

200,000 rows in eight shards, the same bytes each time. The columns are id, age (years), income (USD per year) and score
(0 to 1). The bad rows are of the kinds that real exports contain: a value out of range, text in a number column, an
empty field, NaN, a row with an extra field, and, at the end of one file, an unclosed quote.
"""

from __future__ import annotations

import argparse
import pathlib

import numpy as np
import polars as pl

ROWS = 200_000
SHARDS = 8
BAD_SHARE = 0.01
SEED = 7

# The faults and their frequency: (column, share of the bad rows, text of the field).
FAULTS = [
    ("age", 0.20, "212"),  # out_of_range
    ("income", 0.15, "-1"),  # out_of_range
    ("age", 0.15, "n/a"),  # wrong_type
    ("income", 0.10, "about 50k"),  # wrong_type
    ("income", 0.15, ""),  # missing_value
    ("score", 0.15, "nan"),  # not_finite
    ("score", 0.10, "0.5,0.7"),  # ragged_row: an extra field
]


def sample_people(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Return plausible people: age (int64, years), income (int64, USD per year), score (float64, 0 to 1)."""
    age = np.clip(rng.normal(40, 12, rows), 18, 95).astype(np.int64)
    income = np.clip(rng.lognormal(10.7, 0.5, rows), 0, 5e5).astype(np.int64)
    score = np.round(rng.beta(2, 2, rows), 4)
    return {"age": age, "income": income, "score": score}


def spoil(people: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Return the table as text, with the faults of `FAULTS` in `BAD_SHARE` of its rows."""
    bad = rng.permutation(people.height)[: round(people.height * BAD_SHARE)]
    ends = np.cumsum([round(len(bad) * share) for _, share, _ in FAULTS])
    text = people.with_columns(pl.col("*").cast(pl.String))
    for (column, _, value), rows in zip(FAULTS, np.split(bad, ends), strict=False):
        spoilt = np.zeros(people.height, bool)
        spoilt[rows] = True
        text = text.with_columns(pl.when(pl.Series(spoilt)).then(pl.lit(value)).otherwise(column).alias(column))
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(SEED)
    people = pl.DataFrame({"id": np.arange(ROWS), **sample_people(rng, ROWS)})
    # A missing score is allowed: the job file gives that column a default.
    present = pl.Series(rng.random(ROWS) >= 0.002)
    text = spoil(people.with_columns(pl.when(present).then("score").alias("score")), rng)

    size = ROWS // SHARDS
    for shard in reversed(range(SHARDS)):  # make takes the first file, written last, for all of them
        rows = text.slice(shard * size, size)
        # Fields are written unquoted, so that a comma in a field makes the row ragged.
        data = rows.write_csv(quote_style="never")
        if shard == SHARDS - 1:
            data = data[:-1]
            start = data.rindex(",") + 1
            data = f'{data[:start]}"{data[start:]}\n'
        (folder / f"people-{shard}.csv").write_text(data)
    print(f"{ROWS:,} rows of sample data in {SHARDS} files: {folder}/people-*.csv")


if __name__ == "__main__":
    main()
