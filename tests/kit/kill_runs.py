"""Kills thousands of runs: `make kills KILLS=1000 SEED=1`, or

    python tests/kit/kill_runs.py --kills 1000 --seed 1

See `kills` for the definition of a case.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jobs
from forks import serving
from kills import STEPS, Case, Played, Stage, drawn_case, how_to_repeat, named_cases, play, work_done
from outcomes import make_scene

_AT_ONCE = 2
_BATCH = 20


@contextlib.contextmanager
def _stage(folder: Path) -> Iterator[Stage]:
    for model in ("echo", "doubled"):
        # In a separate process: TensorFlow must not be running in a server that forks.
        code = f"import models, pathlib; models.{model}(pathlib.Path({str(folder / model)!r}))"
        subprocess.run([sys.executable, "-c", code], check=True, env=jobs.environment(TF_CPP_MIN_LOG_LEVEL="3"))
    scene = make_scene(folder / "scene", str(folder / "echo"), str(folder / "doubled"))
    with serving(folder) as forks:
        yield Stage.set(scene, forks)


def _cases(seed: int) -> Iterator[Case]:
    rng = random.Random(seed)
    for kind in STEPS:
        yield from named_cases(rng, kind)
    while True:
        yield drawn_case(rng)


def _play_all(stage: Stage, cases: Iterator[Case], kills: int, folder: Path) -> int:
    done, rows, played, failed = 0, 0, 0, 0

    def one(numbered: tuple[int, Case]) -> tuple[Case, Played | AssertionError]:
        number, case = numbered
        own = folder / f"case-{number}"
        own.mkdir()
        try:
            result = play(case, stage, own)
        except AssertionError as error:
            return case, error
        shutil.rmtree(own)
        return case, result

    numbered = enumerate(cases)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while done < kills:
            batch = list(itertools.islice(numbered, _BATCH))
            for case, result in pool.map(one, batch):
                played += 1
                if isinstance(result, Played):
                    done, rows = done + result.kills, rows + result.rows
                else:
                    failed += 1
                    print(f"FAILED {case}\n{result}\n{how_to_repeat(case)}\n", flush=True)
            print(f"{played} runs, {failed} failed, {done} kills", flush=True)
            if len(batch) < _BATCH:
                break
    good = played - failed
    print(work_done(done, rows, max(1, good) * stage.rows))
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", help="plays just this one")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="beam-score-kills-"))
    cases = iter([Case.parse(options.case)]) if options.case else _cases(options.seed)
    with _stage(folder) as stage:
        failed = _play_all(stage, cases, options.kills, folder)
    print(f"{failed} failed; what they left is in {folder}" if failed else "none failed")
    if not failed:
        shutil.rmtree(folder)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
