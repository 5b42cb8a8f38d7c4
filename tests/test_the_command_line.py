"""What a person meets: help, errors that say what to do, exit codes, logs without a value, progress."""

import json
import os
import re
import subprocess
import sys

import jobs
import pytest

from beam_score.pipeline.job.job import load_job, parse_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.preflight import prepare
from beam_score.pipeline.run.launch import run
from beam_score.pipeline.run.output_state import OutputState
from beam_score.transforms.ledger.folder import read_plan

MARKER = "sesame"  # stands in every row of some data, and must stand in no log


@pytest.fixture
def people(tmp_path):
    jobs.write_people(tmp_path / "data", 2, 500, bad_every=50)
    return tmp_path


def python(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=jobs.ROOT, env=jobs.environment(**env)
    )


def called(*arguments):
    """Code that calls the command line, and goes on."""
    return (
        f"import sys; sys.argv = {['beam-score', *arguments]}\n"
        "from beam_score.pipeline.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
    )


# Help.


@pytest.mark.parametrize("command", ["init", "inspect", "check", "run", "replay", "status", "clean", "bench"])
def test_the_help_of_every_command_shows_an_example(command):
    done = jobs.cli(command, "--help")
    assert done.returncode == 0 and f"Example:  beam-score {command} " in done.stdout
    assert "--help" in done.stdout and "<bool>" not in done.stdout


def test_help_imports_neither_beam_nor_tensorflow_nor_arrow():
    code = called("--help")
    done = python(
        code + "print([m for m in ('apache_beam', 'tensorflow', 'pyarrow', 'polars', 'pydantic') if m in sys.modules])"
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "from beam_score.pipeline.job.job import load_job; load_job('examples/demo/job.yaml')",
        "from beam_score.pipeline.process import errors; errors.explain(ValueError('x'))",
        "import beam_score.pipeline.show.status_view, beam_score.pipeline.run.clean, beam_score.pipeline.run.launching",
        "import sys; from beam_score.pipeline import cli;"
        "sys.argv = ['beam-score', 'run', 'no-such.yaml']; cli._command()",
    ],
)
def test_a_job_file_is_parsed_and_refused_without_beam(code):
    done = python(code + "\nimport sys; print([m for m in ('apache_beam', 'tensorflow') if m in sys.modules])")
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


LARGE = ("apache_beam", "google.api_core", "grpc", "tensorflow", "pandas", "pyarrow", "polars", "numpy")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model):
    """A folder with a finished job, and two jobs that cannot run."""
    folder = tmp_path_factory.mktemp("finished")
    jobs.write_people(folder / "data", 2, 100)
    for name, sections in (
        ("typo", {"inputs": {"inputs": {"pack": ["age", "incom", "score"]}}}),
        ("missing", {"input": {"files": str(folder / "nothing" / "*.csv")}}),
        ("job", {}),
    ):
        os.rename(jobs.write_job(folder, model("multiply"), **sections), folder / f"{name}.yaml")
    run(load_job(str(folder / "job.yaml")))
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "needed"),
    [
        ("--help", 0, ()),
        ("status {folder}/out", 0, ()),
        ("clean {folder}/out", 0, ()),
        ("inspect {model}", 0, ()),
        ("init {model} --data {folder}/data/*.csv -o -", 0, ("pandas", "pyarrow", "numpy")),
        ("run {folder}/no-such.yaml", 2, ("pyarrow", "numpy")),
        ("run {folder}/typo.yaml", 2, ("pyarrow", "numpy")),
        ("check {folder}/missing.yaml", 5, ("pyarrow", "numpy")),
        ("run {folder}/job.yaml", 0, ("pyarrow", "numpy")),
    ],
)
def test_a_command_imports_only_what_it_needs(finished, model, arguments, code, needed):
    arguments = arguments.format(folder=finished, model=model("multiply")).split()
    done = python(
        f"import sys; sys.argv = {['beam-score', *arguments]}; from beam_score.pipeline import cli\n"
        f"code = cli._command(); print(code, [m for m in {LARGE} if m in sys.modules])"
    )
    assert done.stdout.splitlines()[-1] == f"{code} {[m for m in LARGE if m in needed]}", done.stderr


def test_a_local_run_imports_no_client_of_a_service(finished, model):
    arguments = ["run", str(finished / "job.yaml"), "--set", f"output.path={finished / 'again'}"]
    watched = "{'google.cloud.storage', 'pymongo'}"
    code = called(*arguments) + f"print('apache_beam' in sys.modules, {watched} & sys.modules.keys())"
    assert python(code).stdout.splitlines()[-1] == "True set()"


def test_a_terminal_shows_first_of_all_that_a_command_has_begun():
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "beam_score.pipeline.cli", "check", "no-such.yaml"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, cwd=jobs.ROOT, env=jobs.environment())
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "checking the job" in shown.splitlines()[0] and "no-such.yaml" in shown


def test_packages_that_were_left_out_can_be_used_later():
    code = (
        "import sys; from beam_score.runners import lean; lean.leave_out_extras(); lean.import_beam()\n"
        "left_out = {'pandas', 'google.cloud.storage', 'pymongo', 'boto3', 'apitools', 'requests'}\n"
        "print(sorted({*left_out, 'apache_beam.io.gcp.bigquery', 'apache_beam'} & sys.modules.keys()))\n"
        "lean.recognise_pandas('csv'); assert 'pandas' not in sys.modules\n"
        "import pyarrow as pa; assert pa.array([1.0, None]).to_pandas().isna().sum() == 1\n"
        "lean.recognise_pandas('parquet'); assert pa.array([1], pa.timestamp('ns')).to_pylist()[0].value == 1\n"
        "import pandas as pd; assert pa.array(pd.Series([1.0, None])).null_count == 1\n"
        "import google.cloud.storage, apache_beam.io.gcp.gcsio, apache_beam.io.gcp.bigquery"
    )
    done = python(code)
    assert done.returncode == 0 and done.stdout.strip() == "['apache_beam']", done.stderr


def test_shells_complete_commands_and_options():
    code = "import sys; sys.argv = ['beam-score']; from beam_score.pipeline.cli import main; main()"
    for words, expected in (("beam-score ch", "check"), ("beam-score run --repl", "--replace")):
        place = str(words.count(" "))
        done = python(code, _BEAM_SCORE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=place)
        assert expected in done.stdout.split() and "Usage" not in done.stdout, done.stderr
    done = jobs.cli("--help")
    assert "--install-completion" in done.stdout


def test_no_package_imports_tensorflow():
    code = """
import importlib, pathlib, sys
for package in ("pipeline", "transforms", "runners"):
    for path in sorted(pathlib.Path(package).rglob("*.py")):
        importlib.import_module(".".join(("beam_score", *path.with_suffix("").parts)))
        assert "tensorflow" not in sys.modules, path
print("none")
"""
    done = python(code)
    assert done.stdout.strip() == "none", done.stderr


def test_inspect_imports_no_tensorflow(model):
    code = called("inspect", model("multiply"))
    done = python(code + "print('tensorflow' in sys.modules)")
    assert done.stdout.splitlines()[-1] == "False" and "probabilities" in done.stdout


# Every command, once, as a person would.


def test_from_a_model_and_data_to_predictions(people, model):
    job = str(people / "job.yaml")
    done = jobs.anew("init", model("multiply"), "--data", str(people / "data" / "*.csv"), "-o", job)
    assert done.returncode == 0, done.stderr
    done = jobs.anew("check", job, "--set", "rejects.budget=5%", cwd=people)
    assert done.returncode == 0, done.stderr
    assert "ready" in done.stdout and "wrong_type" in done.stdout and "probabilities" in done.stdout
    done = jobs.anew("run", job, "--json", "--set", "rejects.budget=5%", cwd=people)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["counts"]["rejected_by_reason"] == {"wrong_type": 20}
    written = next(people.rglob("manifest.json"))
    assert manifest.pop("launch_s")["run"] > 0
    assert manifest == json.loads(written.read_bytes())
    done = jobs.anew("run", job, "--set", "rejects.budget=5%", cwd=people)
    assert done.returncode == 0 and "Finished already" in done.stdout
    done = jobs.anew("bench", job, cwd=people)
    assert done.returncode == 0 and "batch rows" in done.stdout and "auto: " in done.stdout


# Mistakes: a sentence each, all at once, exit code 2, and never a traceback.


def wrong(*arguments, **env):
    done = jobs.cli(*arguments, **env)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and "Traceback" not in done.stdout
    return " ".join(done.stderr.split())


def test_a_job_file_that_is_not_there():
    assert "no-such.yaml: No such file or directory; write one with: beam-score init" in wrong("run", "no-such.yaml")


def test_mistakes_on_the_command_line(people, model):
    job = jobs.write_job(people, model("multiply"))
    assert "nosuch" in wrong("nosuch")
    assert "--relpace" in wrong("run", job, "--relpace")
    assert "--log-level loud: expected debug, info, warning, error" in wrong("run", job, "--log-level", "loud")
    said = wrong("run", job, "--", "--direct_num_worker=2", "--direct_running_mode=threads", "--streming")
    assert "direct_running_mode" in said and "invalid choice" in said
    said = wrong("run", job, "--", "--direct_num_wrokers=2", "--streming", "stray")
    assert "unknown option --direct_num_wrokers; did you mean 'direct_num_workers'?" in said
    assert "unknown option --streming; did you mean 'streaming'?" in said and "'stray'" in said
    assert "engine.runner" in wrong("run", job, "--", "--runner=DataflowRunner")


def test_every_problem_of_a_job_is_told_at_once(people, model):
    job = jobs.write_job(
        people,
        model("multiply") + "-not",
        input={"files": str(people / "dta" / "*.csv")},
        output={"path": str(people / "data" / "people-0.csv" / "out")},
    )
    said = wrong("run", job)
    assert "dta/' does not exist" in said and "model.path" in said and "is a file, expected a folder" in said


PROBLEMS = [
    ({"input": {"files": "x", "formt": "csv"}}, "unknown key 'input.formt'; did you mean 'format'?"),
    ({"outptu": {}}, "unknown key 'outptu'; did you mean 'output'?"),
    ({"columns": {"age": {"dtpye": "float32"}}}, "unknown key 'columns.age.dtpye'; did you mean 'dtype'?"),
    ({"columns": {"age": {}}}, "key 'columns.age.dtype' is missing"),
    ({"columns": {"age": {"dtype": "flaot32"}}}, "columns.age.dtype: found 'flaot32'"),
    ({"columns": {"age": {"dtype": "float32", "range": [3, 1]}}}, "range [3, 1] is empty"),
    (
        {"rejects": {"budget": "lots"}},
        "rejects.budget: 'lots': expected a share, for example 1%, or a whole number of rows",
    ),
    ({"rejects": {"budget": -1}}, "rejects.budget: -1"),
    ({"rejects": {"budget": "200%"}}, "expected a share from 0% to 100%"),
    ({"rejects": {"files": -1}}, "rejects.files"),
    ({"engine": {"workers": "many"}}, "engine.workers: found 'many'"),
    ({"engine": {"workers": 0}}, "workers: expected a positive number, or auto"),
    ({"engine": {"split_bytes": "64XB"}}, "'64XB' is not a size"),
    ({"engine": {"runner": "flinkk"}}, "engine.runner: found 'flinkk'"),
    ({"model": {"path": "x", "batch_rows": 0}}, "model.batch_rows: expected a positive number of rows, or auto"),
    ({"model": {"path": "x", "batch_rows": "some"}}, "model.batch_rows: found 'some'"),
    ({"model": {}}, "key 'model.path' is missing"),
    ({"input": {"files": []}}, "input.files: name at least one file or pattern"),
    ({"input": {"files": "x", "csv": {"delimiter": ";;"}}}, "input.csv.delimiter"),
    ({"input": None}, "input: found None"),
    ({"outputs": {"p": {"meaning": "likelihood"}}}, "outputs.p.meaning: found 'likelihood'"),
    ({"outputs": {"p": {"top": 2}}}, "labels, top and threshold need a meaning"),
    ({"inputs": {"x": {"pack": ["a"], "column": "b"}}}, "an input has only one source"),
    ({"output": {"path": "o", "format": "csv"}}, "output.format: found 'csv'"),
]


@pytest.mark.parametrize(("sections", "said"), PROBLEMS, ids=[said[:40] for _, said in PROBLEMS])
def test_a_wrong_key_is_told_with_its_place(sections, said):
    base = {"input": {"files": "x"}, "model": {"path": "m"}, "output": {"path": "o"}}
    with pytest.raises(JobError) as error:
        parse_job(base | sections)
    assert any(said in problem for problem in error.value.problems), error.value.problems
    assert len(error.value.problems) == 1  # once, and nothing that follows from it


def test_several_wrong_keys_are_told_together():
    with pytest.raises(JobError) as error:
        parse_job({"inptu": {}, "model": {"path": 3}, "rejects": {"budget": "x"}})
    assert len(error.value.problems) == 4  # misspelt, missing, a type, a budget


def write(tmp_path, text):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return str(path)


GOOD = "input: {files: x}\nmodel: {path: m}\noutput: {path: o}\n"

TEXTS = {
    "a key twice": (GOOD + "model: {path: n}\n", "duplicate key"),
    "a tag that makes an object": (
        GOOD + "preprocess: !!python/object/apply:os.system ['touch pwned']\n",
        "not valid YAML",
    ),
    "a tab": ("input:\n\tfiles: x\n", "not valid YAML"),
    "not closed": ("input: {files: x\n", "not valid YAML"),
    "a list": ("- input\n", "not a job file"),
    "nothing": ("", "not a job file"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_is_no_job_is_told(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, said = TEXTS[name]
    with pytest.raises(JobError, match=said):
        load_job(write(tmp_path, text))
    assert not (tmp_path / "pwned").exists()


def test_bytes_that_are_no_text_are_told(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(JobError, match="is not UTF-8"):
        load_job(str(path))
    with pytest.raises(JobError, match="directory"):
        load_job(str(tmp_path))


def test_no_and_off_are_words_and_numbers_are_numbers(tmp_path):
    outputs = "outputs: {p: {meaning: probabilities, labels: [no, yes], threshold: 0.5}}\n"
    text = GOOD + outputs + "engine: {xla: off, split_bytes: 64MiB}\n"
    job = load_job(write(tmp_path, text))
    assert job.outputs["p"].labels == ("no", "yes") and job.engine.xla == "off" and job.engine.split_bytes == 64 << 20


def test_set_overrides_any_key(tmp_path):
    path = write(tmp_path, GOOD)
    job = load_job(
        path, ["rejects.budget=5%", "model.version=3", "output.keep=[a, b]", "columns.age.dtype=int8", "engine.xla=on"]
    )
    assert job.rejects.budget == 0.05 and job.model.version == "3" and job.output.keep == ("a", "b")
    assert job.columns["age"].dtype == "int8" and job.engine.xla == "on"
    for override, said in {
        "rejects.budgt=5%": "unknown key 'rejects.budgt'; did you mean 'budget'",
        "rejects": "expected key=value",
        "=3": "expected key=value",
        "model.path.x=3": "'path' is a value, not a section with keys",
        "rejects.budget={": "not valid YAML",
        "rejects..budget=1": "expected key=value",
    }.items():
        with pytest.raises(JobError) as error:
            load_job(path, [override])
        assert said in error.value.problems[0]


# Logs.


def test_logs_are_structured_and_hold_no_value_at_any_level(tmp_path, model):
    data = tmp_path / "data"
    data.mkdir()
    # Poison rows among them, so that the model's own message would show one; and a file that is damaged.
    rows = [f"{MARKER}{i},{i}.25,{'2000000.5' if i == 77 else MARKER if i % 40 == 7 else 731},0.5" for i in range(500)]
    (data / "a.csv").write_text("id,a,b,c\n" + "\n".join(rows) + f'\n"{MARKER}')
    columns = {n: {"dtype": "float32"} for n in "abc"}
    for form in ("text", "json"):
        job = jobs.write_job(
            tmp_path,
            model("poison"),
            columns=columns,
            inputs={"x": {"pack": ["a", "b", "c"]}},
            rejects={"budget": "10%"},
            output={"path": str(tmp_path / form)},
        )
        done = jobs.anew("run", job, "--log-level", "debug", "--log-format", form)
        assert done.returncode == 0, done.stderr
        letters = jobs.dead_letters(tmp_path / form)
        assert {x["reason"] for x in letters} == {"wrong_type", "model_error", "unterminated_quote"}
        assert MARKER not in done.stderr and "2000000" not in done.stderr
        assert not any(MARKER in x["message"] for x in letters if x["reason"] == "model_error")
        run_id = jobs.manifest(tmp_path / form)["run"]
        assert re.search(r"batch: x float32 \[\d+, 3\] finite \d+ of \d+ min \S+ max \S+", done.stderr)
        ours = [line for line in done.stderr.splitlines() if re.search(r"\b(pipeline|transforms|runners)\.\w+", line)]
        assert len(ours) > 3
        if form == "json":
            lines = [json.loads(line) for line in ours]
            assert all({"event", "level", "logger", "timestamp", "run"} <= line.keys() for line in lines)
            assert {line["run"] for line in lines} == {run_id}
        else:
            assert all(f"run={run_id}" in line for line in ours)


def test_a_model_that_fails_on_every_row_is_told_without_its_values(tmp_path, model):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("id,a,b,c\n" + "k,2000000.5,2,3\n" * 200)
    job = jobs.write_job(
        tmp_path,
        model("poison"),
        columns={n: {"dtype": "float32"} for n in "abc"},
        inputs={"x": {"pack": ["a", "b", "c"]}},
    )
    said = wrong("run", job)
    assert "the model fails on every row" in said and "in op Assert" in said
    assert "2000000" not in said and "poisoned" not in said


def test_beam_and_tensorflow_are_silent_unless_asked(people, model):
    job = jobs.write_job(people, model("multiply"), rejects={"budget": "5%"})
    done = jobs.anew("run", job)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert all(re.search(r"\[beam_score\.[\w.]+\]", line) for line in lines), done.stderr
    assert len(lines) <= 5
    done = jobs.anew("run", job, "--replace", "--log-level", "warning")
    assert (done.returncode, done.stderr) == (0, "")


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal():
    from beam_score.pipeline.run.status import Status
    from beam_score.pipeline.show.progress import log_now_and_then

    times = iter([0, 10, 31, 40, 62])
    said = []
    show = log_now_and_then(lambda: next(times), lambda *line: said.append(line))
    for done in range(4):
        counts = {"read": 1000 * done, "rejected": done}
        show(Status("out", "running", "RUN", None, done, 9, 10, 90, counts, 250.0 if done else None, done * 30))
    assert [form % value for form, value in said] == [
        "RUN running, 1 of 9 splits, 1,000 rows, 1 rejected, 250 rows/s, 30 s left",
        "RUN running, 3 of 9 splits, 3,000 rows, 3 rejected, 250 rows/s, 1 min 30 s left",
    ]


# Exit codes.


def test_exit_codes(people, model):
    job = jobs.write_job(people, model("multiply"))
    over = jobs.cli("run", job)
    assert over.returncode == 3
    assert "Over the error budget" in over.stdout and "rejects.budget allows 0.01" in over.stdout
    assert "--set rejects.budget" in over.stdout
    assert "without scoring again" in over.stdout and "beam-score replay" in over.stdout
    done = jobs.cli("run", job, "--set", "rejects.budget=5%", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["verdict"] == "done"
    changed = jobs.cli("run", job, "--set", "rejects.payload=none")
    assert changed.returncode == 6 and "payload changed" in changed.stderr and "--replace" in changed.stderr


def test_unusable_files_are_told_by_check_and_before_a_run(people, model):
    (people / "data" / "bad.csv").write_text("id,Age,income,score\n1,2,3,0.5\n")
    job = jobs.write_job(people, model("multiply"), rejects={"budget": "5%"})
    done = jobs.cli("check", job)
    assert done.returncode == 3 and "unusable" in done.stdout and "did you mean" in done.stdout
    assert "not ready: 1 of 3 files cannot be used, and rejects.files allows 0" in done.stdout
    done = jobs.cli("run", job)
    assert done.returncode == 3 and "bad.csv" in done.stdout and "missing_column" in done.stdout
    assert "Nothing was read." in done.stdout and "--set rejects.files=1" in done.stdout
    assert "without scoring again" not in done.stdout and "beam-score replay" not in done.stdout


# Metrics.


def test_metrics_have_stable_names(people, model):
    columns = jobs.COLUMNS | {"bonus": {"dtype": "float32", "default": 1.0}}
    (people / "data" / "more.csv").write_text("id,age,income,score,bonus\n" + "a,1,2,0.5,\n" * 7)
    for path in (people / "data").glob("people*"):
        path.write_text(
            "\n".join(f"{line},{'bonus' if at == 0 else 5}" for at, line in enumerate(path.read_text().splitlines()))
        )
    planned = jobs.plan(jobs.job(people, model("multiply"), columns=columns, rejects={"budget": "5%"}))
    from beam_score.pipeline.prepare.chain import build

    result = jobs.run_locally(
        lambda p: build(
            p, planned.steps, planned.write, read_plan(planned.folder)["shards"], planned.job.rejects.as_budget()
        ),
        2,
    )
    metrics = result.metrics().query()
    counters = {c.key.metric.name: c.committed for c in metrics["counters"] if c.key.metric.namespace == "beam_score"}
    expected = {"rows_read": 1007, "rows_predicted": 987, "rows_rejected.wrong_type": 20, "defaults_used": 7}
    assert counters == counters | expected and counters["model_calls"] > 0
    distributions = {
        d.key.metric.name: d.committed for d in metrics["distributions"] if d.key.metric.namespace == "beam_score"
    }
    assert {"batch_rows", "model_ms", "load_ms"} <= distributions.keys()
    assert distributions["batch_rows"].sum == 987 and distributions["batch_rows"].max <= 256


# The record of a run.


def test_the_manifest_has_every_documented_field_and_no_other(people, model):
    assert run(jobs.job(people, model("multiply"), rejects={"budget": "5%"})).code == 0
    manifest = jobs.manifest(people / "out")
    text = (jobs.ROOT / "docs" / "manifest.md").read_text()
    documented = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [name for name in documented if "." not in name] == list(manifest)
    found = set()
    for name, value in manifest.items():
        if name in ("counts", "timings", "model", "engine"):
            found |= {f"{name}.{key}" for key in value}
        if name in ("files", "inputs"):
            found |= {f"{name}.{key}" for key in value[0]}
    found |= {f"counts.rejected_by_column.{key}" for key in manifest["counts"]["rejected_by_column"][0]}
    assert {name for name in documented if "." in name} == found
    assert manifest["timings"]["rows_per_s"] > 0 and manifest["timings"]["start_up_s"]["check"] >= 0
    assert OutputState.of(str(people / "out")).runs == [manifest["run"]]
    assert prepare(jobs.job(people, model("multiply"))).model_hash == manifest["model"]["sha256"]


def test_a_file_whose_name_is_no_text_is_told(tmp_path, model):
    jobs.write_people(tmp_path / "data", 2, 10)
    (tmp_path / "data" / "people-0.csv").rename(tmp_path / "data" / os.fsdecode(b"people-\xff.csv"))
    with pytest.raises(JobError, match=r"people-\\xff\.csv: the name is not UTF-8: rename the file"):
        prepare(jobs.job(tmp_path, model("multiply")))


TWICE = """
import os, signal, sys
from beam_score.pipeline import cli

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class AtImport:
    def find_spec(self, name, *where):
        if name == "beam_score.pipeline.process.errors":
            interrupt()

say = cli.say
def interrupted_say(problems):
    interrupt()
    say(problems)

cli.app, cli.say = interrupt, interrupted_say
sys.meta_path.insert(0, AtImport())
sys.argv[1:] = [COMMAND]
cli.main()
"""


@pytest.mark.parametrize(
    ("command", "said"), [("run", "interrupted; the same command continues from here"), ("inspect", "interrupted")]
)
def test_a_second_interrupt_while_the_first_is_told_does_not_silence_it(command, said):
    done = subprocess.run(
        [sys.executable, "-c", TWICE.replace("COMMAND", repr(command))],
        capture_output=True,
        text=True,
        env=jobs.environment(),
        cwd=jobs.ROOT,
    )
    assert (done.returncode, done.stderr.strip(), done.stdout) == (130, f"error: {said}", "")
