"""Most requests are answered on numpy arrays, without Arrow: with the same bytes, accounts and verdicts."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_score.pipeline.job.steps import Steps
from beam_score.pipeline.serve.answering.answer import Request
from beam_score.pipeline.serve.answering.certain import CertainRows
from beam_score.pipeline.serve.answering.direct import Direct
from beam_score.pipeline.serve.answering.rows import CONTRACT, Rows
from beam_score.pipeline.serve.answering.served import Served
from beam_score.pipeline.serve.answering.verdicts import Verdicts
from beam_score.pipeline.serve.tensors.protos import encoded
from beam_score.pipeline.serve.tensors.stubs import messages
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.contract.inputs import Input, Standardize
from beam_score.transforms.contract.outputs import Output, OutputPlan
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.signature import Signature, Tensor

CONTRACT_COLUMNS = {
    "id": Column(dtype="int64"),
    "small": Column(dtype="uint8", range=(3, None), default=7),
    "code": Column(dtype="int16", allowed=(1, 2, 300)),
    "a": Column(dtype="float32", range=(0, 150)),
    "b": Column(dtype="float64", finite=False),
    "half": Column(dtype="float16", default=0.5),
    "yes": Column(dtype="bool"),
    "v": Column(dtype="float32", shape=(3,), range=(-5, 5)),
    "note": Column(dtype="string", max_length=8, required=False, default=""),
}
GOOD = {
    "id": ["1", "-7", "9223372036854775807"],
    "small": ["3", "255", "null"],
    "code": ["1", "300"],
    "a": ["1", "149.9999", "150", "-0.0", "0.1", "1e-46", "1.17549429e-38"],
    "b": ["0.1", "16777217", "-1e39", "9007199254740993", "1e308", "123456789012345678901234567890", "-12.5e-3"],
    "half": ["1", "0.333", "null", "6e-8"],
    "yes": ["true", "false"],
    "v": ["[1, 2.5, -0.5]", "[5,5,5]", "[0.1,1e-50,3]"],
    "note": ['"ok"', '"a:b[c"', '"\\u00e9\\n"', '"\u20ac{}"', "null"],
}
ODD = {
    "id": ["9223372036854775808", "1.0", "1e3", "2.5", "true", '"1"', "null", "[1]", "-0"],
    "small": ["2", "256", "-1", "3.0"],
    "code": ["3", "65537", "1.0"],
    "a": ["150.00001", "-1e-30", "1e400", "1e39", '"x"', "{}", "null", "-0", "01", "NaN", "1.", "0x1"],
    "b": ["-0", "1e309", "false", "[]", '"0.1"'],
    "half": ["65520", "1e5", "[0.5]"],
    "yes": ["1", '"true"', "null"],
    "v": [
        "[1, 2]",
        "[1, 2, 3, 4]",
        "[1, null, 2]",
        "[1, [2], 3]",
        "[1, 2, 6]",
        "[1, 2, true]",
        "null",
        "5",
        "[-0, 1, 1]",
    ],
    "note": ['"far too long for it"', "5", '"\\ud800"', '"a\\"b:"', '"\x01"', '"}, {"', '"b\\u003a"'],
}
EXTRA = ['"more": 1', '"more": {"deep": [1]}', '"more": {}', '"more": [[]]', '"id": 5', '"": null', '"more": "x:y"']

INPUTS = {
    "x": Input(pack=("a", "b", "v", "half"), standardize=Standardize(mean=0, std=(2, 2, 2, 2, 2, 3))),
    "n": Input(column="small", cast="int32"),
}
SIGNATURE = Signature(
    "serving_default",
    {
        "x": Tensor("x", "float32", (None, 6)),
        "n": Tensor("n", "int32", (None,)),
        "id": Tensor("id", "int64", (None,)),
        "yes": Tensor("yes", "bool", (None,)),
        "note": Tensor("note", "string", (None,)),
    },
    {
        "y": Tensor("y", "float32", (None, 6)),
        "out": Tensor("out", "int64", (None,)),
        "is": Tensor("is", "bool", (None,)),
        "of": Tensor("of", "float64", (None, 3)),
        "one": Tensor("one", "float32", (None,)),
        "length": Tensor("length", "int64", (None,)),
    },
)
OUTPUTS = {
    "y": Output(as_="50% y"),
    "out": Output(),
    "is": Output(),
    "length": Output(),
    "of": Output(meaning="logits", labels=("no", 'a "q"', "%d"), top=2, threshold=0.4),
    "one": Output(meaning="probability", labels=("no", "yes"), threshold=0.5),
}


class Echo:
    """Gives inputs back in several forms; refuses an id of 13."""

    signature = SIGNATURE
    takes_texts = False

    def call(self, feeds, deadline_s=None):
        if (feeds["id"] == 13).any():
            raise ValueError("13")
        x = feeds["x"]
        return {
            "y": x,
            "out": feeds["id"],
            "is": feeds["yes"],
            "of": x[:, :3].astype("float64") / 7,
            "one": 1 / (1 + np.exp(-np.abs(x[:, 0]))),
            "length": np.array([len(text) for text in feeds["note"]]) + feeds["n"],
        }


def made_of(model, columns, outputs=OUTPUTS, extra="ignore", inputs=INPUTS) -> tuple[Served, Served]:
    """Return what answers with and without numpy."""
    call = ModelCall("nowhere", model.signature, tuple(outputs), batch_rows=64, proven=True)
    read = ReadSettings(format="jsonl", columns=Contract(columns=columns), payload=False, extra=extra)
    tensors = {name: SIGNATURE.outputs[name] for name in outputs}
    steps = Steps(read, inputs, None, call, OutputPlan((), False, outputs, tensors))
    assert Direct.is_able(steps) and CertainRows.is_able(read)
    fast, exact = Verdicts(steps, model), Verdicts(steps, model)
    exact.certain = None
    return Served(Rows(fast), {}, CONTRACT, 100), Served(Rows(exact), {}, CONTRACT, 100)


def served(outputs=OUTPUTS, extra="ignore") -> tuple[Served, Served]:
    return made_of(Echo(), CONTRACT_COLUMNS, outputs, extra)


BOTH = {extra: served(extra=extra) for extra in ("ignore", "reject")}
ALONE = {name: served({name: OUTPUTS[name]}) for name in ("y", "out")}


@st.composite
def rows(draw: st.DrawFn, odd: float = 0.1) -> str:
    """Return a row as JSON text: mostly good."""
    chance = random.Random(draw(st.integers(0, 1 << 32)))
    members = [
        f'"{name}"{chance.choice([":", " : "])}'
        + chance.choice(ODD[name] if chance.random() < odd / len(GOOD) else GOOD[name])
        for name in GOOD
        if chance.random() > odd / len(GOOD)
    ]
    if chance.random() < odd:
        members.append(chance.choice(EXTRA))
    chance.shuffle(members)
    return "{" + chance.choice([",", ", "]).join(members) + "}"


BODIES = st.lists(
    st.tuples(
        st.sampled_from(["", "", "", '"signature_name": "contract", ', '"on_error": "row", ', '"instances": [], ']),
        st.lists(rows() | rows(0.0), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=8,
)


def compare(both: tuple[Served, Served], bodies: list[bytes], form: str = "json") -> None:
    requests = [Request(str(number), body, form) for number, body in enumerate(bodies)]
    fast, exact = (one.answer(requests) for one in both)
    fast += [answer for request in requests for answer in both[0].answer([request])]  # one may send all to Arrow
    for request, one, other in zip(requests * 2, fast, exact * 2, strict=True):
        assert one == other, request.body


@settings(max_examples=100, deadline=None)
@given(BODIES, st.sampled_from(["ignore", "reject"]))
def test_answers_are_the_same_bytes_with_numpy_and_with_arrow(bodies, extra):
    compare(BOTH[extra], [f'{{{head}"instances": [{", ".join(own)}]}}'.encode() for head, own in bodies])


@settings(max_examples=50, deadline=None)
@given(st.lists(rows(0.0), min_size=1, max_size=5), st.sampled_from(["y", "out"]))
def test_a_single_column_is_written_without_its_name(own, name):
    compare(ALONE[name], [b'{"instances": [' + ", ".join(own).encode() + b"]}"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=8), st.data())
def test_floats_have_the_same_spelling(numbers, data):
    good = {name: json.loads(GOOD[name][0]) for name in GOOD}
    bodies = [json.dumps({"instances": [good | {"b": number} for number in numbers]}).encode()]
    wide = data.draw(st.floats(allow_nan=False, allow_infinity=False))
    compare(BOTH["ignore"], [*bodies, json.dumps({"instances": [good | {"b": wide}]}).encode()])


def good_row(**changes: str) -> str:
    return (
        "{"
        + ", ".join(f'"{name}": {value}' for name, value in ({n: v[0] for n, v in GOOD.items()} | changes).items())
        + "}"
    )


@pytest.mark.parametrize("extra", ["ignore", "reject"])
def test_each_odd_value_and_key_has_the_verdict_of_a_file(extra):
    rows = [good_row(**{name: value}) for name in GOOD for value in (*GOOD[name], *ODD[name])]
    rows += [f"{good_row()[:-1]}, {more}}}" for more in EXTRA]
    rows += [f"{good_row(note=note)[:-1]}, {more}}}" for more in EXTRA for note in ODD["note"]]
    rows += [good_row()[1:-1].replace(f'"{name}"', '"_"').join("{}") for name in GOOD]
    rows += ["5", "null", "[1]", "{}", '{"a": 1}', "{" + '"more": ' + "[" * 1001 + "]" * 1001 + ", " + good_row()[1:]]
    compare(BOTH[extra], [f'{{"instances": [{row}]}}'.encode() for row in rows])
    compare(BOTH[extra], [f'{{"instances": [{good_row()}, {row}]}}'.encode() for row in rows])


def test_good_rows_do_not_need_arrow():
    fast, _ = served()
    fast._rows._verdicts._exact = fast._rows._verdicts._many = None
    made = [good_row(**{name: value}) for name in GOOD for value in GOOD[name] if value not in ("-1e39", "1e308")]
    answers = fast.answer([Request("", f'{{"instances": [{row}]}}'.encode()) for row in made])
    assert [(answer.status, answer.predicted) for answer in answers] == [(200, 1)] * len(made)


def test_a_row_on_which_the_model_raises_refuses_its_request_alone():
    both = BOTH["ignore"]
    bodies = [f'{{"instances": [{good_row(id=str(number))}]}}'.encode() for number in range(10, 20)]
    compare(both, bodies)
    answers = both[0].answer([Request("", body) for body in bodies])
    assert [answer.status for answer in answers] == [200] * 3 + [400] + [200] * 6


NUMBERS = {name: CONTRACT_COLUMNS[name] for name in ("id", "a", "b", "half", "v")} | {"small": Column(dtype="uint8")}


def columns(count: int, **changes) -> dict[str, np.ndarray]:
    """Return good columns, with changes."""
    made = {name: np.ones((count, *column.shape), column.dtype) for name, column in NUMBERS.items()}
    return made | {"id": np.arange(count) + 100} | changes


def predict(feeds: dict[str, np.ndarray], *wanted: str) -> bytes:
    """Return a PredictRequest."""
    request = messages("predict_pb2").PredictRequest()
    request.output_filter.extend(wanted)
    for name, feed in feeds.items():
        request.inputs[name].ParseFromString(encoded(feed))
    return request.SerializeToString()


def test_columns_of_grpc_have_the_same_answers_with_numpy_and_with_arrow():
    fixed = {"yes": np.array([True]), "note": np.array([b"text"], object)}

    class Numbers(Echo):
        signature = dataclasses.replace(
            SIGNATURE, inputs={name: tensor for name, tensor in SIGNATURE.inputs.items() if name not in fixed}
        )

        def call(self, feeds, deadline_s=None):
            return super().call(feeds | {name: np.repeat(value, len(feeds["id"])) for name, value in fixed.items()})

    both = made_of(Numbers(), NUMBERS)
    good = [columns(3), columns(1, id=np.array([7])), columns(20, a=np.linspace(0, 150, 20, dtype="float32"))]
    good += [columns(90)]  # in two calls of the model
    odd = [
        columns(2, a=np.array([1, 151], "float32")),
        columns(2, a=np.array([1, np.nan], "float32")),
        columns(2, b=np.array([1, np.inf])),
        columns(2, a=np.array([1, 2], "float64")),
        columns(2, small=np.array([1, 300], "int32")),
        columns(2, v=np.ones((2, 4), "float32")),
        columns(2, id=np.array([1, 13])),
        columns(2, id=np.arange(3)),
        columns(101),
        columns(0),
        columns(2, more=np.ones(2)),
        {name: feed for name, feed in columns(2).items() if name != "half"},
        {name: feed for name, feed in columns(2).items() if name != "a"},
    ]
    bodies = [predict(feeds) for feeds in (*good, *odd)]
    bodies += [predict(good[0], "of_label", "out"), predict(good[0], "nix"), predict(good[0], "out", "out")]
    compare(both, bodies, "proto")
    fast = both[0]
    fast._rows._verdicts.judge_columns = None
    assert [answer.status for answer in fast.answer([Request("", body, "proto") for body in bodies[:4]])] == [200] * 4


@pytest.mark.parametrize("count", [100, 101])
def test_limits_are_the_same(count):
    compare(BOTH["ignore"], [b'{"instances": [' + ", ".join([good_row()] * count).encode() + b"]}"])


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bytes"},
        {"dtype": "float32", "shape": (None,)},
        {"dtype": "float32", "shape": (2, 2)},
        {"dtype": "float32", "from": "string"},
        {"dtype": "string", "nulls": ("-",)},
        {"dtype": "string", "strip": True},
    ],
)
def test_a_contract_with_other_kinds_of_columns_is_left_to_arrow(change):
    column = Column(**change)
    read = ReadSettings(format="jsonl", columns=Contract(columns={"x": column}), payload=False)
    assert not CertainRows.is_able(read)
    plain = dataclasses.replace(read, columns=Contract(columns={"x": Column(dtype="float32")}))
    assert CertainRows.is_able(plain)


FLOATS = {
    "a": Column(dtype="float32", range=(0.1, 150)),
    "b": Column(dtype="float32", default=0.25, range=(None, 0.3)),
    "c": Column(dtype="float32", range=(-1e38, None)),
}
VALUES = [
    "0.1",
    "0.3",
    "0.25",
    "0",
    "150",
    "150.0000001",
    "150.1",
    "0.09999999",
    "-3e38",
    "1e39",
    "1e400",
    "-0",
    "-0.0",
]
ODD_VALUES = ["null", '"x"', "true", "[1]", "{}", "1.", "NaN"]


class Table:
    """Gives its input back."""

    signature = Signature(
        "serving_default", {"x": Tensor("x", "float32", (None, 3))}, {"y": Tensor("y", "float32", (None, 6))}
    )
    takes_texts = False

    def call(self, feeds, deadline_s=None):
        return {"y": np.concatenate([feeds["x"], feeds["x"]], axis=1)}


PACKED = {"x": Input(pack=("a", "b", "c"), standardize=Standardize(mean=0, std=3))}
TABLES = {extra: made_of(Table(), FLOATS, {"y": Output()}, extra, PACKED) for extra in ("ignore", "reject")}
VALUE = st.sampled_from(VALUES[:5]) | st.sampled_from(VALUES) | st.sampled_from([*VALUES, *ODD_VALUES])
MEMBERS = st.sampled_from([("a", "b", "c"), ("c", "b", "a"), ("a", "c"), ("a", "b", "more"), ("a", "b", "c", "more")])
TABLE_ROW = st.tuples(MEMBERS, VALUE, VALUE, VALUE, VALUE)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(TABLE_ROW, min_size=1, max_size=4), min_size=1), st.sampled_from(["ignore", "reject"]))
def test_a_table_of_floats_and_verdicts_that_are_remembered_are_the_same_bytes(requests, extra):
    """The first row with a fault is judged as in a file, and the verdict is kept for those with the same."""
    bodies = [
        '{"instances": ['
        + ", ".join(
            "{" + ", ".join(f'"{name}": {value}' for name, value in zip(names, values, strict=False)) + "}"
            for names, *values in own
        )
        + "]}"
        for own in requests
    ]
    compare(TABLES[extra], [body.encode() for body in bodies])


def test_a_fault_is_judged_once(monkeypatch):
    fast, exact = made_of(Table(), FLOATS, {"y": Output()}, inputs=PACKED)
    verdicts, judged = fast._rows._verdicts, []
    judge = verdicts.judge
    monkeypatch.setattr(verdicts, "judge", lambda bodies: judged.append(len(bodies)) or judge(bodies))
    for a in range(200, 220):
        row = {"a": a, "b": 0.1, "c": 1}
        request = Request(str(a), json.dumps({"instances": [row, row | {"a": 5}]}).encode())
        assert fast.answer([request]) == exact.answer([request])
    assert judged == [1]


class Sum:
    """Returns both of its inputs."""

    signature = Signature(
        "serving_default",
        {"x": Tensor("x", "float32", (None,)), "raw": Tensor("raw", "float32", (None,))},
        {"y": Tensor("y", "float32", (None,)), "z": Tensor("z", "float32", (None,))},
    )
    takes_texts = False

    def call(self, feeds, deadline_s=None):
        return {"y": feeds["x"], "z": feeds["raw"]}


@pytest.mark.parametrize("form", ["json", "proto"])
def test_two_inputs_may_be_made_of_one_column(form):
    inputs = {"x": Input(column="c", standardize=Standardize(mean=10, std=2)), "raw": Input(column="c")}
    columns = {"c": {"dtype": "float32", "range": [0, 100]}}
    model, outputs = Sum(), {"y": Output(), "z": Output()}
    call = ModelCall("nowhere", model.signature, tuple(outputs), batch_rows=64, proven=True)
    read = ReadSettings(format="jsonl", columns=Contract(columns=columns), payload=False)
    steps = Steps(read, inputs, None, call, OutputPlan((), False, outputs, dict(model.signature.outputs)))
    served = Served(Rows(Verdicts(steps, model)), {}, CONTRACT, 100)
    if form == "json":
        bodies = [b'{"instances": [{"c": 20}]}', b'{"instances": [{"c": 300}]}', b'{"instances": [{"c": 30}]}']
        answers = served.answer([Request(str(k), body, form) for k, body in enumerate(bodies)])
        assert [a.status for a in answers] == [200, 400, 200]
        found = [json.loads(a.body)["predictions"] for a in (answers[0], answers[2])]
        assert found == [[{"y": 5.0, "z": 20.0}], [{"y": 10.0, "z": 30.0}]]
        return
    bodies = [predict({"c": np.array([value], "float32")}) for value in (20, 30)]
    answers = served.answer([Request(str(k), body, form) for k, body in enumerate(bodies)])
    found = [messages("predict_pb2").PredictResponse.FromString(bytes(answer.body)).outputs for answer in answers]
    assert [(list(own["y"].float_val), list(own["z"].float_val)) for own in found] == [([5], [20]), ([10], [30])]
