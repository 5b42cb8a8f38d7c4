"""Files of the protocol that are not what was written are passed over or told of, never believed."""

import json
import shutil

import jobs
import numpy as np
import pytest
import turns

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.run.clean import clean
from beam_score.pipeline.run.launch import run
from beam_score.transforms.durable.sealed import CorruptFile, seal, unseal
from beam_score.transforms.ledger.manifest import Unreadable


@pytest.fixture
def over_budget(tmp_path, model):
    """A job that was scored and is over budget: all of its staging stands."""
    jobs.write_people(tmp_path / "data", 3, 300, bad_every=20)
    assert run(jobs.job(tmp_path, model("multiply"), rejects={"budget": 0})).code == 3
    (staging,) = (p.parent for p in (tmp_path / "out").glob("_staging/*/plan.json"))
    return jobs.job(tmp_path, model("multiply"), rejects={"budget": "10%"}), staging, tmp_path / "out"


def is_published(output):
    manifest = jobs.manifest(output)
    assert manifest["counts"]["read"] == 900 == len(jobs.predictions(output)) + len(jobs.dead_letters(output))
    assert not (output / "_staging").exists()
    return manifest


def test_numbers_of_any_size_are_sealed():
    assert unseal(seal({"range": [-(10**25), 1 << 63], "rows": np.int64(3)})) == {"range": [-1e25, 1 << 63], "rows": 3}


def test_what_is_sealed_is_opened_as_it_was_or_not_at_all():
    sealed = seal({"a": [1, 2.5, None], "b": {"c": "d"}})
    assert unseal(sealed) == {"a": [1, 2.5, None], "b": {"c": "d"}}
    for at in range(len(sealed)):
        spoilt = bytearray(sealed)
        spoilt[at] ^= 1
        with pytest.raises(CorruptFile, match="damaged"):
            unseal(bytes(spoilt))
    for content in (b"", b"{}", b"[]", b"null", b"\xff", sealed[:-1], b'{"a": 1}'):
        with pytest.raises(CorruptFile, match="damaged"):
            unseal(content)


@pytest.mark.parametrize(
    "damage", ["a byte", "cut", "emptied", "another split's", "its part is gone", "its part is cut"]
)
def test_a_receipt_that_does_not_count_costs_its_split_no_more(over_budget, damage):
    job, staging, output = over_budget
    receipt = staging / "receipts" / "000001.json"
    part = next((staging / "parts").glob("predictions-000001-*"))
    match damage:
        case "a byte":
            turns.spoil(receipt)
        case "cut":
            receipt.write_bytes(receipt.read_bytes()[:-20])
        case "emptied":
            receipt.write_bytes(b"")
        case "another split's":
            shutil.copy(staging / "receipts" / "000000.json", receipt)
        case "its part is gone":
            part.unlink()
        case "its part is cut":
            part.write_bytes(part.read_bytes()[:-1])
    outcome = run(job)
    assert outcome.code == 0 and "run" in outcome.seconds  # the split was read again
    is_published(output)


def test_a_damaged_receipt_stays_beside_the_one_that_counts(over_budget, tmp_path, model):
    _, staging, _ = over_budget
    receipt = staging / "receipts" / "000001.json"
    turns.spoil(receipt)
    spoilt = receipt.read_bytes()
    again = run(jobs.job(tmp_path, model("multiply"), rejects={"budget": 0}))  # over budget again: staging stays
    assert again.code == 3
    assert receipt.read_bytes() == spoilt
    assert json.loads((staging / "receipts" / "000001.2.json").read_bytes())["split"] == 1
    assert not (staging / "receipts" / "000000.2.json").exists()


def test_a_damaged_verdict_is_made_again(over_budget):
    job, staging, output = over_budget
    turns.spoil(staging / "commit-1.json")
    assert run(job).code == 0
    is_published(output)


@pytest.mark.parametrize("file", ["plan.json", "../current.json"])
def test_a_plan_that_cannot_be_believed_is_discarded_by_restart(over_budget, file):
    job, staging, output = over_budget
    turns.spoil(staging / file)
    with pytest.raises(JobError, match=r"--restart"):
        run(job)
    assert run(job, restart=True).code == 0
    clean(str(output))  # whose the old staging is, is not known any more
    is_published(output)


def test_a_damaged_shard_of_the_plan_is_told(over_budget):
    job, staging, output = over_budget
    (shard,) = (staging / "plan").iterdir()
    turns.spoil(shard)
    turns.spoil(staging / "receipts" / "000000.json")  # else nothing of it is needed any more
    with pytest.raises(Exception, match="damaged") as error:
        run(job)
    code, (said,) = explain(error.value)
    assert code == 1 and str(shard) in said and "--restart" in said
    assert run(job, restart=True).code == 0
    is_published(output)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"not json", b'{"run": "x"}'])
def test_a_manifest_that_is_none_is_told_and_left_alone(tmp_path, model, content):
    jobs.write_people(tmp_path / "data", 1, 30)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_bytes(content)
    with pytest.raises(Unreadable, match=r"manifest\.json is not a manifest of beam-score, or is damaged") as error:
        run(jobs.job(tmp_path, model("multiply")))
    assert explain(error.value)[0] == 1
    assert (tmp_path / "out" / "manifest.json").read_bytes() == content
