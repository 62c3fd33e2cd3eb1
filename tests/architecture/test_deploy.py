"""The files in deploy/ can be read by what they are for. No cluster is here to run them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SLURM, KUBERNETES = DEPLOY / "slurm.sh", DEPLOY / "kubernetes.yaml"


def stub(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def run_under_stubs(tmp_path: Path, srun: str, *arguments: str) -> tuple[int, list[str]]:
    """Exit code of the script, and the words of each Slurm command that it called, `srun` doing what is given."""
    bin_, log = tmp_path / "bin", tmp_path / "log"
    bin_.mkdir()
    say = f'echo "${{0##*/}} $*" >> {log}\n'
    stub(bin_, "srun", say + srun)
    stub(bin_, "scancel", say + f"touch {tmp_path}/told")
    stub(bin_, "scontrol", say + "echo node-a; echo node-b")
    environment = os.environ | {"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "RUN": str(tmp_path / "run")}
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_NNODES": "2"}
    command = ["bash", str(SLURM), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert not done.stderr, done.stderr
    return done.returncode, log.read_text().splitlines()


def test_the_slurm_script_is_a_shell_script() -> None:
    done = subprocess.run(["bash", "-n", str(SLURM)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.access(SLURM, os.X_OK)
    head = SLURM.read_text(encoding="utf-8").partition("\nset ")[0]  # Slurm reads no #SBATCH line below a command
    assert SLURM.read_text(encoding="utf-8").count("\n#SBATCH ") == head.count("\n#SBATCH ") > 0


def test_a_slurm_job_starts_and_ends_as_its_work_does(tmp_path: Path) -> None:
    code, calls = run_under_stubs(tmp_path, "exit 3", "text", "--preset", "modern-base")
    assert code == 3
    assert [call.split()[0] for call in calls] == ["scontrol", "srun"]
    assert "--rdzv-endpoint node-a:29400" in calls[1]
    assert calls[1].endswith(f"pretrain text --preset modern-base --out {tmp_path}/run")


def test_a_slurm_job_that_runs_out_of_time_is_saved_and_queued_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    # The time limit comes while the work goes on; it ends only when it has been told to.
    work = f"kill -USR1 $PPID\nuntil [[ -e {tmp_path}/told ]]; do sleep 0.05; done\nexit 143"
    code, calls = run_under_stubs(tmp_path, work, "text")
    assert code == 143
    assert calls[1].endswith(f"pretrain --out {tmp_path}/run --resume")
    assert calls[2:] == ["scancel --signal=TERM 7.0", "scontrol requeue 7"]


def test_the_job_for_kubernetes_has_a_service_and_as_many_pods_as_torchrun_waits_for() -> None:
    text = KUBERNETES.read_text(encoding="utf-8")
    assert "\t" not in text
    for part in ("kind: Service", "clusterIP: None", "kind: Job", "completionMode: Indexed", "subdomain: bertsmith"):
        assert f"{part}\n" in text or f"{part} #" in text
    if importlib.util.find_spec("yaml") is None:
        pytest.skip("checked by its text alone: there is no yaml here")
    import yaml

    service, job = yaml.safe_load_all(text)
    pod = job["spec"]["template"]
    container = pod["spec"]["containers"][0]
    nodes = next(int(item["value"]) for item in container["env"] if item["name"] == "NODES")
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == nodes
    assert service["metadata"]["name"] == pod["spec"]["subdomain"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert f"--nproc-per-node {container['resources']['limits']['nvidia.com/gpu']} " in container["args"][0]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}
    done = subprocess.run(["bash", "-n", "-c", container["args"][0]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
