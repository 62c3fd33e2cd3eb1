"""The service under load, beside infinity-emb: all-MiniLM-L6-v2, the same requests, the same number of threads.

Asked: requests a second at equal p99; what three times as many requests as can be answered do; whether memory grows.

How it is measured: each service is a process of its own with `--threads` threads, and gets one sentence a request in
OpenAI's shape (`/v1/embeddings` of ours, `/embeddings` of theirs). `--clients` numbers of clients, each asking again as
soon as it is answered, take turns at the services for `--seconds` each; of each service the most requests a second
count among those rounds whose p99 is at most some bound, and the bounds are the p99s that were seen. Latencies are
corrected for coordinated omission. Where `wrk` is installed it asks as well. Then ours alone: `--soak` minutes of
requests at random times, half as many as the most that it answered; and, in a fresh service, the same ("unloaded") and
three times as many as that most, for `--overload` seconds. Memory is the resident memory of the service's process and
of all below it. It asks that the machine does nothing else meanwhile: on one that is shared only the ratio of
neighbouring rounds says anything.

infinity-emb needs other versions than we do (numpy below 2, typer below 0.13), so it has an environment of its own:

    python -m venv /tmp/infinity
    /tmp/infinity/bin/pip install "infinity-emb[server,torch,optimum]" "numpy<2" "typer<0.13"
    python benchmarks/serve_load.py --infinity /tmp/infinity/bin/infinity_emb
    python benchmarks/serve_load.py --seconds 2 --clients 1 4 --overload 5 --soak 0.2

Last result (2026-11-26, 2 cores of a Xeon with AMX, which do the asking as well; infinity's torch engine): 1.6 to 3.5
times its requests a second at equal p99, 2.1 times for one client. The overload with default settings: only 200 and
429, p99 of what was accepted 0.74 times the unloaded, three quarters of the most that it answers go on being
answered; memory 5.5 % more, all of it in the first seconds (kernels for numbers of tokens not seen before), and none
in the second minute. Soak of 30 minutes (2026-11-27, an EPYC with AVX2 and other work, one thread): 968.1 MB, then
968.3 (+0.02 %).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from _ground import data_folder, field_mb, machine, minilm
from embed_vs_peers import texts_of, with_onnx

from bertsmith.serve.loadtest import Load, LoadConfig, load_test

NAME = "minilm"
START = 300
"""Seconds within which a service must answer."""
WRK = """
local bodies, n = {}, 0
for line in io.lines("%s") do bodies[#bodies + 1] = line end
wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
request = function()
  n = n %% #bodies + 1
  return wrk.format(nil, nil, nil, bodies[n])
end
"""


@dataclass
class Running:
    """A service.

    Attributes:
        name: in the table.
        url: of its route for vectors.
        process: its first process.
    """

    name: str
    url: str
    process: subprocess.Popen[bytes]

    def memory_mb(self) -> float:
        """Resident memory of all its processes."""
        above: dict[int, int] = {}
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                above[int(status.parent.name)] = int(re.findall(r"^PPid:\s+(\d+)", status.read_text(), re.M)[0])
            except (OSError, IndexError):
                continue
        mine = {self.process.pid}
        while more := {child for child, parent in above.items() if parent in mine} - mine:
            mine |= more
        return sum(field_mb(number, "VmRSS") for number in mine)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(
    name: str, words: Sequence[str], path: str, port: int, threads: int, folder: Path | None = None
) -> Iterator[Running]:
    """A service, from when it answers until the block ends.

    Args:
        name: in the table.
        words: its command line.
        path: of its route for vectors.
        port: where it listens.
        threads: of its computing.
        folder: in which it runs; None: this one.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=folder)
        service = Running(name, f"http://127.0.0.1:{port}{path}", process)
        try:
            end = time.monotonic() + START
            while True:
                try:
                    body = {"input": "a", "model": NAME}
                    if httpx.post(service.url, json=body, timeout=START).status_code == httpx.codes.OK:
                        break
                except httpx.TransportError:
                    pass
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise SystemExit(f"{name} did not start:\n{log.read().decode(errors='replace')[-3000:]}")
                time.sleep(0.2)
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def ours(threads: int, precision: str, *settings: str) -> Any:
    """Our service of the model.

    Args:
        threads: of its worker.
        precision: of `bertsmith serve`.
        settings: words of `--set`.
    """
    port = free_port()
    words = [sys.executable, "-m", "bertsmith", "serve", f"{NAME}={minilm()}", "--port", str(port)]
    words += ["--threads", str(threads), "--device", "cpu", "--precision", precision, "--quiet"]
    words += [word for setting in settings for word in ("--set", setting)]
    return running("bertsmith", words, "/v1/embeddings", port, threads)


def theirs(program: str, engine: str, threads: int, folder: Path) -> Any:
    """infinity-emb with the same model.

    Args:
        program: its command, in its own environment.
        engine: `torch` or `optimum`.
        threads: of its computing.
        folder: of the model; its optimum engine finds the ONNX file only of a model in `.`.
    """
    port = free_port()
    words = [program, "v2", "--model-id", ".", "--served-model-name", NAME, "--engine", engine]
    words += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port), "--no-model-warmup"]
    return running(f"infinity {engine}", words, "/embeddings", port, threads, folder)


def ask(service: Running, bodies: Sequence[Any], **how: Any) -> Load:
    """Put load on a service.

    Args:
        service: that is asked.
        bodies: of the requests.
        how: fields of LoadConfig.
    """
    return asyncio.run(load_test(service.url, bodies, LoadConfig(**how)))


def told(name: str, load: Load) -> dict[str, Any]:
    """Print one round, and give its numbers.

    Args:
        name: of the round.
        load: what came of it.
    """
    found = load.as_dict()
    latency = found["latency_ms"]
    times = f"p50 {latency['p50']:8.1f} ms  p99 {latency['p99']:8.1f} ms" if latency else "no answer"
    print(f"{name:34} {found['answered_per_second']:8.1f}/s  {times}  {found['statuses']}", flush=True)
    return found


def closed(services: Sequence[Running], bodies: Sequence[Any], options: argparse.Namespace) -> float:
    """All numbers of clients at all services in turns; a table of requests a second by p99.

    Args:
        services: ours first.
        bodies: of the requests.
        options: of the command line.

    Returns:
        The most requests a second that ours answered.
    """
    rounds: dict[str, list[tuple[float, float]]] = {service.name: [] for service in services}
    for clients in options.clients:
        for service in services:
            load = ask(service, bodies, connections=clients, duration=options.seconds)
            found = told(f"{service.name}, {clients} clients", load)
            if set(found["statuses"]) == {"200"}:
                rounds[service.name].append((found["latency_ms"]["p99"], found["answered_per_second"]))
    if len(services) > 1:
        print("\np99 at most (ms)  " + "".join(f"{service.name:>18}" for service in services) + "     ratio")
        for bound in sorted({p99 for seen in rounds.values() for p99, _ in seen}):
            best = [max((speed for p99, speed in seen if p99 <= bound), default=0.0) for seen in rounds.values()]
            ratio = f"{best[0] / max(best[1:]):9.2f}" if max(best[1:]) else "        -"
            print(f"{bound:16.1f}  " + "".join(f"{speed:18.1f}" for speed in best) + f" {ratio}")
    return max((speed for _, speed in rounds[services[0].name]), default=0.0)


def with_wrk(service: Running, bodies: Sequence[Any], options: argparse.Namespace) -> None:
    """The same by wrk, with the middle number of clients.

    Args:
        service: that is asked.
        bodies: of the requests.
        options: of the command line.
    """
    program = shutil.which("wrk")
    if program is None:
        print("wrk is not installed, so it was not asked")
        return
    clients = sorted(options.clients)[len(options.clients) // 2]
    with tempfile.TemporaryDirectory() as folder:
        lines, script = Path(folder) / "bodies", Path(folder) / "ask.lua"
        lines.write_text("".join(json.dumps(body) + "\n" for body in bodies), encoding="utf-8")
        script.write_text(WRK % lines, encoding="utf-8")
        words = [
            program,
            "-t1",
            f"-c{clients}",
            f"-d{max(1, round(options.seconds))}s",
            "--latency",
            "--timeout",
            "30s",
        ]
        out = subprocess.run(
            [*words, "-s", str(script), service.url], capture_output=True, text=True, check=True
        ).stdout
    speed, p99 = re.findall(r"Requests/sec:\s+([\d.]+)", out), re.findall(r"99%\s+(\S+)", out)
    wrong = re.findall(r"(Non-2xx.*|Socket errors.*)", out)
    print(f"{service.name + ', wrk, ' + str(clients) + ' clients':34} {speed[0]:>8}/s  p99 {p99[0]}  {' '.join(wrong)}")


def overload(service: Running, bodies: Sequence[Any], most: float, seconds: float) -> None:
    """Half of what it can, then three times as much.

    Args:
        service: ours.
        bodies: of the requests.
        most: requests a second that it can answer.
        seconds: of the overload.
    """
    rest = told("unloaded, half of that", ask(service, bodies, rate=most / 2, duration=max(2.0, seconds / 4)))
    before = service.memory_mb()
    found = told("three times that", ask(service, bodies, rate=3 * most, duration=seconds, connections=800))
    after = service.memory_mb()
    others = set(found["statuses"]) - {"200", "429"}
    ratio = found["latency_ms"]["p99"] / rest["latency_ms"]["p99"] if found["latency_ms"] else float("inf")
    print(
        f"overload: other answers than 200 and 429: {', '.join(sorted(others)) or 'none'}; p99 of what was accepted is "
        f"{ratio:.2f} x the unloaded; memory {before:.0f} MB, then {after:.0f} MB ({100 * (after / before - 1):+.1f} %)"
    )


def soak(service: Running, bodies: Sequence[Any], rate: float, minutes: float) -> None:
    """Steady load, and how resident memory goes.

    Args:
        service: ours.
        bodies: of the requests.
        rate: requests a second.
        minutes: how long.
    """

    async def both() -> tuple[Load, list[float]]:
        sizes: list[float] = []
        config = LoadConfig(rate=rate, duration=60 * minutes, connections=200)
        task = asyncio.create_task(load_test(service.url, bodies, config))
        while not task.done():
            sizes.append(service.memory_mb())
            await asyncio.wait({task}, timeout=min(5.0, 60 * minutes / 40))
        return task.result(), sizes

    load, sizes = asyncio.run(both())
    told(f"soak, {minutes:g} minutes", load)
    tenth = max(1, len(sizes) // 10)
    course = [median(sizes[at : at + tenth]) for at in range(0, len(sizes) - tenth + 1, tenth)]
    first, last = course[min(1, len(course) - 1)], course[-1]
    print(
        f"soak: memory {first:.1f} MB at first, {last:.1f} MB at last ({100 * (last / first - 1):+.2f} %); "
        f"in tenths of the time: {', '.join(f'{size:.0f}' for size in course)}"
    )


def main() -> None:
    """Start the services, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--infinity", help="the command infinity_emb of an environment of its own")
    parser.add_argument("--engines", nargs="+", default=["torch", "optimum"], help="of infinity")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--overload", type=float, default=60.0, help="seconds; 0: not")
    parser.add_argument("--set", nargs="*", default=[], help="settings of ours in the overload, key=value")
    parser.add_argument("--soak", type=float, default=0.0, help="minutes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="auto", help="of ours")
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA")
    texts = [text for text in texts_of(data, 2000) if len(text) < 400]
    bodies = [{"input": text, "model": NAME} for text in texts]
    print(f"{machine()}; {options.threads} threads each; {len(bodies)} sentences, one a request")
    with ExitStack() as stack:
        services = [stack.enter_context(ours(options.threads, options.precision))]
        for engine in options.engines if options.infinity else ():
            folder = minilm()
            if engine == "optimum":
                folder = with_onnx(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model")
            services.append(stack.enter_context(theirs(options.infinity, engine, options.threads, folder)))
        most = closed(services, bodies, options)
        for service in services:
            with_wrk(service, bodies, options)
        if options.soak:
            soak(services[0], bodies, most / 2, options.soak)
    if options.overload:
        with ours(options.threads, options.precision, *options.set) as service:
            ask(service, bodies, connections=16, duration=min(5.0, options.overload))
            overload(service, bodies, most, options.overload)


if __name__ == "__main__":
    main()
