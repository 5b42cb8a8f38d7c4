"""The command line of tensorflow_model_server, and its files, mean the same here."""

from __future__ import annotations

import jobs
import pytest
import requests
import serving

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.serve.answering.answer import Answer, Request
from beam_score.pipeline.serve.reports.accounts import Accounts
from beam_score.pipeline.serve.reports.tfserving import as_text
from beam_score.pipeline.serve.tfserving.flags import translated

GOOD = {"age": 1, "income": 1.5, "score": 0.5}


def test_a_command_line_of_tensorflow_serving_starts_the_server(tmp_path, model):
    job, ready = jobs.write_job(tmp_path, model("multiply")), tmp_path / "ready"
    (tmp_path / "batching").write_text("max_batch_size { value: 8 }\nbatch_timeout_micros { value: 1500 }\n")
    (tmp_path / "monitoring").write_text('prometheus_config { enable: true path: "/tf" }\n')
    flags = [
        *("--port=0", "--rest_api_port", "0", "--model_name=people", "--enable_batching"),
        *(f"--batching_parameters_file={tmp_path}/batching", "--monitoring_config_file", f"{tmp_path}/monitoring"),
        *("--rest_api_timeout_in_ms=500", f"--grpc_socket_path={tmp_path}/grpc.sock"),
        *("--enable_grpc_healthcheck_service=true", "--rest_api_enable_cors_support"),
    ]
    refused = jobs.cli("serve", job, "--check", *flags)
    assert refused.returncode == 2 and "HTTP is always served" in refused.stderr
    flags[1:3] = ["--set=serve.port=0"]
    process = jobs.start("serve", job, *flags, f"--ready-file={ready}")
    with serving.until_ready(process, ready) as server:
        answer = server.post("/v1/models/people:predict", {"instances": [GOOD]})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "*"
        assert server.get("/tf").status_code == 200 and (tmp_path / "grpc.sock").exists()
        assert requests.get(server.address + "/monitoring/prometheus/metrics", timeout=30).status_code == 404
        assert server.end() == 0


def test_flags_become_settings(tmp_path):
    file = tmp_path / "batching"
    file.write_text(
        "max_batch_size { value: 16 } batch_timeout_micros { value: 500 } allowed_batch_sizes: 4 "
        "allowed_batch_sizes: 16 num_batch_threads { value: 2 } pad_variable_length_inputs: true"
    )
    assert translated(
        ["job.yaml", "--port=9", "--rest_api_port=8", "--check", f"--batching_parameters_file={file}"]
    ) == [
        "job.yaml",
        "--check",
        "--set=serve.grpc_port=9",
        "--set=serve.port=8",
        "--set=serve.batching.rows=16",
        "--set=serve.batching.window_ms=0.5",
    ]
    assert translated(["--model_base_path=/m", "--model_name=a"]) == ["/m", '--set=serve.name="a"']
    assert translated(["job.yaml", "--model_base_path", "/m"]) == ["job.yaml", '--set=model.path="/m"']


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--model_nam=x"], "did you mean 'model_name'?"),
        (["--tensorflow_session_parallelism=2"], "this server has no such flag"),
        (["--enable_batching=maybe"], "neither true nor false"),
        (["--port=x", "--enable_batching"], "--port: 'x' is not a whole number"),
        (["--batching_parameters_file=/nix"], "/nix: No such file or directory"),
    ],
)
def test_what_is_not_understood_is_one_sentence(flags, problem):
    with pytest.raises(JobError) as refused:
        translated(["job.yaml", *flags])
    assert len(refused.value.problems) == 1 and problem in refused.value.problems[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_batch_size: 5", "not a BatchingParameters"),
        ("nix { value: 1 }", "nix"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "end with max_batch_size"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, text, problem):
    (tmp_path / "file").write_text(text)
    with pytest.raises(JobError) as refused:
        translated(["job.yaml", f"--batching_parameters_file={tmp_path}/file"])
    assert len(refused.value.problems) == 1 and problem in refused.value.problems[0]


def test_an_unknown_flag_ends_the_command_with_2(tmp_path, model):
    done = jobs.cli("serve", jobs.write_job(tmp_path, model("multiply")), "--check", "--flush_filesystem_caches")
    assert done.returncode == 2 and "--flush_filesystem_caches" in done.stderr and "Traceback" not in done.stderr


def test_copies_of_requests_are_not_in_the_metrics_of_tensorflow_serving():
    accounts = Accounts()
    account = accounts.of("m", 1)
    for protocol in ("rest", "shadow"):
        account.begin()
        account.end(Request("", b"", "json"), Answer(200, b"", received=1, predicted=1), protocol, 0.01)
    text = as_text(accounts).decode()
    assert 'request_latency_count{model_name="m",API="predict",entrypoint="REST"} 1' in text and "shadow" not in text
