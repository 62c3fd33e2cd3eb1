"""The service does what its own description says: schemathesis makes requests out of the schema and checks answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method"
)


def test_every_route_is_described_with_an_example_or_without_a_body(served: Any) -> None:
    schema = served.get("/openapi.json").json()
    assert schema["openapi"].startswith("3.")
    bodies = [
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for operations in schema["paths"].values()
        for operation in operations.values()
        if "requestBody" in operation
    ]
    assert len(bodies) >= 8
    assert all(schema["components"]["schemas"][name]["examples"] for name in bodies)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_failure_and_no_answer_against_the_schema(served: Any, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "schemathesis.cli", "run", served.url + "/openapi.json", "--checks", CHECKS]
    words += ["--max-examples", "50", "--seed", "1", "--continue-on-failure", "--request-timeout", "60", "--no-color"]
    environment = {name: value for name, value in os.environ.items() if name not in ("http_proxy", "HTTP_PROXY")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-6000:]
    operations = len([one for path in served.get("/openapi.json").json()["paths"].values() for one in path])
    (tested,) = re.findall(r"Tested: (\d+)", told)
    assert int(tested) == operations
    assert served.figure("bertsmith_worker_restarts_total") == 0
