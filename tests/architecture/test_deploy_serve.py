"""The files in deploy/ that run the service agree with the code and with each other. No container is here to run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bertsmith.core.config import load
from bertsmith.serve.app import build_app
from bertsmith.serve.gate import OPEN, Gate
from bertsmith.serve.service import ServeConfig, Service

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
PORT = 8000


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def dockerfile() -> dict[str, list[str]]:
    """What stands behind each instruction of the last stage, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for line in text.rpartition("\nFROM ")[2].splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            found.setdefault(name, []).append(rest)
    return found


def service_of_systemd() -> dict[str, list[str]]:
    lines = (DEPLOY / "systemd" / "bertsmith.service").read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def container() -> dict[str, Any]:
    found: dict[str, Any] = read(KUBERNETES / "deployment.yaml")["spec"]["template"]["spec"]["containers"][0]
    return found


def commands() -> dict[str, list[str]]:
    """The words behind `bertsmith serve`, wherever it is started."""
    entry = yaml.safe_load(dockerfile()["ENTRYPOINT"][0])[2:]
    (started,) = service_of_systemd()["ExecStart"]
    return {
        "Dockerfile": entry + yaml.safe_load(dockerfile()["CMD"][0]),
        "compose": entry + read(DEPLOY / "compose.yaml")["services"]["bertsmith"]["command"],
        "kubernetes": entry + container()["args"],
        "systemd": shlex.split(started)[2:],
    }


@pytest.mark.parametrize("where", ["Dockerfile", "compose", "kubernetes", "systemd"])
def test_the_service_is_started_as_it_can_be(where: str) -> None:
    words = commands()[where]
    help_ = [sys.executable, "-m", "bertsmith.cli.main", "serve", "--help"]
    wide = os.environ | {"COLUMNS": "200"}
    shown = subprocess.run(help_, capture_output=True, text=True, check=True, env=wide).stdout
    known = set(re.findall(r"--[a-z-]+", shown))
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known
    load(ServeConfig, sets=[word.removeprefix("--set=") for word in words if word.startswith("--set=")])
    joined = " ".join(words).replace("=", " ")
    assert f"--port {PORT} " in joined
    assert "--keys" in joined, "without keys everybody who reaches it may ask"


def grace() -> float:
    sets = [word.removeprefix("--set=") for word in container()["args"] if word.startswith("--set=")]
    config = load(ServeConfig, sets=sets)
    return config.drain_delay + config.drain


def test_who_ends_the_service_waits_until_all_is_answered() -> None:
    plain = ServeConfig()
    assert read(KUBERNETES / "deployment.yaml")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > grace()
    stop = read(DEPLOY / "compose.yaml")["services"]["bertsmith"]["stop_grace_period"]
    assert int(stop.removesuffix("s")) > plain.drain_delay + plain.drain
    assert int(service_of_systemd()["TimeoutStopSec"][0]) > plain.drain_delay + plain.drain
    assert dockerfile()["STOPSIGNAL"] == ["SIGTERM"]


def test_probes_ask_a_route_that_is_there_and_open() -> None:
    app = build_app(Service([("m", "no such folder")]))
    assert isinstance(app, Gate)
    paths = set(app.app.openapi()["paths"])  # type: ignore[attr-defined]
    probes = [container()[f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
    asked = {probe["httpGet"]["path"] for probe in probes}
    (health,) = dockerfile()["HEALTHCHECK"]
    asked |= set(re.findall(rf"http://127\.0\.0\.1:{PORT}(/[\w/]+)", health))
    assert asked == {"/health/live"}
    assert asked <= paths & OPEN
    watched = read(KUBERNETES / "servicemonitor.yaml")["spec"]["endpoints"][0]["path"]
    assert watched == "/metrics"
    assert watched in paths
    starting = probes[0]["periodSeconds"] * probes[0]["failureThreshold"]
    assert starting > ServeConfig().watch.start, "a worker that may still start would be ended"
    assert all(probe["timeoutSeconds"] > 10 for probe in probes), "/health/live gives a model ten seconds"


def test_ports_and_names_agree() -> None:
    deployment = read(KUBERNETES / "deployment.yaml")
    (port,) = container()["ports"]
    assert port["containerPort"] == PORT
    assert dockerfile()["EXPOSE"] == [str(PORT)]
    service = read(KUBERNETES / "service.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    policy = read(KUBERNETES / "networkpolicy.yaml")["spec"]
    assert policy["ingress"][0]["ports"][0]["port"] == port["name"]
    assert policy["egress"] == []
    monitor = read(KUBERNETES / "servicemonitor.yaml")["spec"]
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    job = service["metadata"]["labels"][monitor["jobLabel"]]
    scraped = read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"][0]
    rules = (DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8")
    assert scraped["job_name"] == job
    assert set(re.findall(r'job="([^"]+)"', rules)) == {job}
    selectors = [deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]]
    selectors += [policy["podSelector"]["matchLabels"]]
    selectors += [read(KUBERNETES / "pdb.yaml")["spec"]["selector"]["matchLabels"]]
    assert all(selector == labels for selector in selectors)
    name = deployment["metadata"]["name"]
    assert read(KUBERNETES / "hpa.yaml")["spec"]["scaleTargetRef"]["name"] == name
    assert read(KUBERNETES / "keda.yaml")["spec"]["scaleTargetRef"]["name"] == name
    assert (
        read(KUBERNETES / "hpa.yaml")["spec"]["minReplicas"] > read(KUBERNETES / "pdb.yaml")["spec"]["maxUnavailable"]
    )
    keys = deployment["spec"]["template"]["spec"]["volumes"][1]["secret"]["secretName"]
    assert monitor["endpoints"][0]["authorization"]["credentials"]["name"] == keys
    mounted = {mount["name"] for mount in container()["volumeMounts"]}
    assert mounted == {volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]}


def test_the_service_gets_what_it_needs_and_no_more() -> None:
    pod = read(KUBERNETES / "deployment.yaml")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    security = container()["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert f"--threads={container()['resources']['requests']['cpu']}" in container()["args"]
    user = dockerfile()["USER"][0].partition(":")[0]
    assert int(user) == pod["securityContext"]["runAsUser"] > 0
    compose = read(DEPLOY / "compose.yaml")["services"]
    assert compose["bertsmith"]["read_only"]
    assert compose["bertsmith"]["cap_drop"] == ["ALL"]
    ports = [port for service in compose.values() for port in service["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_is_mounted_and_copied_is_there() -> None:
    compose = read(DEPLOY / "compose.yaml")["services"]
    made_by_the_user = {"./models", "./keys", "./keys/prometheus"}
    for service in compose.values():
        assert not service.get("image", "x:1").endswith(":latest")
        assert ":" in service["image"]
        for volume in service["volumes"]:
            place = volume.partition(":")[0]
            if place.startswith("./") and place not in made_by_the_user:
                assert (DEPLOY / place).exists(), place
    prometheus = read(DEPLOY / "prometheus" / "prometheus.yml")
    hosts = [config["static_configs"][0]["targets"][0] for config in prometheus["scrape_configs"]]
    hosts += [prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"][0]]
    assert {host.partition(":")[0] for host in hosts} <= set(compose)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    copied = {word for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.M) for word in line.split()}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_kustomize_finds_all_of_it() -> None:
    listed = set(read(KUBERNETES / "kustomization.yaml")["resources"])
    assert listed | {"keda.yaml", "kustomization.yaml"} == {path.name for path in KUBERNETES.iterdir()}
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl here")
    done = subprocess.run([kubectl, "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(listed)
    assert all(one["metadata"].get("namespace") == "bertsmith" for one in built if one["kind"] != "Namespace")


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd here")
    unit = (DEPLOY / "systemd" / "bertsmith.service").read_text(encoding="utf-8")
    (tmp_path / "bertsmith.service").write_text(unit.replace("/opt/bertsmith/bin/bertsmith", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", str(tmp_path / "bertsmith.service")], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "bertsmith.service" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr
