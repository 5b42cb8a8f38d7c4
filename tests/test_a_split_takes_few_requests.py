"""What a split costs in requests to a store, from a launch to the end: docs/scale.md reckons with it."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jobs

from beam_score.pipeline.run.launch import run
from beam_score.transforms.stores.objects import ObjectPath
from beam_score.transforms.stores.registry import store_of

FEW, MANY = 4, 12
MOST = {"gs": 8.3, "s3": 10.3}
"""A split with two parts, of a file of its own: its head at launch, its content; a look for its receipt; two parts and
a receipt written; a look whether the run stands; the receipt read by the verdict. On S3 a copy a part, too: one request
makes a hundred on Google Cloud Storage. Lists and removals are one for many."""


def requests_of(store, tmp_path: Path, model: str, splits: int) -> Counter[str]:
    """Requests of a whole job over so many files of one split each, a row of each refused; by what is asked."""
    name = f"of-{splits}"
    line = "r1,30,5.5,0.5\n"
    content = ("id,age,income,score\n" + "r0,n/a,5.5,0.5\n" + line * 300).encode()
    put = store_of(store.scheme).write
    with ThreadPoolExecutor(8) as pool:
        paths = [ObjectPath.parse(store.url(f"{name}/data/{n}.csv")) for n in range(splits)]
        list(pool.map(lambda path: put(path, [content]), paths))
    store.proxy.reset()
    output = store.url(f"{name}/out")
    outcome = run(
        jobs.job(
            tmp_path,
            model,
            input={"files": store.url(f"{name}/data")},
            output={"path": output},
            engine={"split_bytes": len(content)},
            rejects={"budget": "10%"},
        )
    )
    assert outcome.code == 0
    assert len(outcome.manifest["files"]) == 2 * splits
    return Counter(f"{r.method} {_kind(r.target)}" for r in store.proxy.requests)


def _kind(target: str) -> str:
    """A target without what is another in each split."""
    plain = target.partition("?")[0] + "#" + target.partition("#")[2] if "#" in target else target.partition("?")[0]
    plain = plain.partition(" ")[0].replace("%2F", "/")
    return re.sub(r"[0-9a-f]{12}|\d{8}T\d{6}-[0-9a-f]{6}|\d+", "N", re.sub(r"of-\d+", "JOB", plain))


def test_a_split_takes_few_requests(store, tmp_path, model):
    """The difference of two jobs: without what each job takes."""
    few, many = (requests_of(store, tmp_path, model("multiply"), splits) for splits in (FEW, MANY))
    a_split = {kind: (many[kind] - few[kind]) / (MANY - FEW) for kind in many | few}
    told = "\n".join(f"{n:5.2f} {kind}" for kind, n in sorted(a_split.items(), key=lambda k: -k[1]) if n)
    assert sum(a_split.values()) <= MOST[store.scheme], told
