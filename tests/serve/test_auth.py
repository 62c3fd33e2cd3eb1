"""API keys: hashed, compared as slowly when wrong as when right, limited, and exchanged while the service runs."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError
from bertsmith.serve.app import build_app
from bertsmith.serve.auth import Caller, Key, Keys, add_key, digest, read_keys, revoke_key
from bertsmith.serve.refusal import Refusal
from bertsmith.serve.server import check_address, check_tls, is_loopback
from bertsmith.serve.service import ServeConfig, Service


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def refused(keys: Keys, headers: dict[str, str]) -> int:
    with pytest.raises(Refusal) as found:
        keys.caller(headers)
    return found.value.status_code


def test_the_file_holds_no_key_and_only_its_owner_reads_it(file: Path) -> None:
    key = add_key(file, "ada")
    assert key not in file.read_text()
    assert key.split("_", 2)[2] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    other = add_key(file, "ada")
    first, second = read_keys(file).keys.values()
    assert first.salt != second.salt
    assert Keys(file).caller(bearer(key)).number != Keys(file).caller({"x-api-key": other}).number


def test_wrong_keys_are_401(file: Path) -> None:
    key = add_key(file, "ada")
    keys = Keys(file)
    wrong = [
        "",
        "x",
        key[:-1],
        key + "a",
        key[:-1] + ("a" if key[-1] != "a" else "b"),
        "k" * 100_000,
        "é" * 40,
        "\udcff",
    ]
    wrong += [f"bs_{'0' * 8}_{'a' * 43}", key.upper(), "bs__", "___"]
    assert [refused(keys, bearer(one)) for one in wrong] == [401] * len(wrong)
    assert refused(keys, {}) == refused(keys, {"authorization": f"Basic {key}"}) == 401
    assert keys.caller(bearer(key)).key.name == "ada"


def test_every_key_that_is_shown_is_hashed_and_compared(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constant time: an unknown key goes the same way as a known one."""
    key = add_key(file, "ada")
    keys = Keys(file)
    hashed: list[int] = []
    monkeypatch.setattr("bertsmith.serve.auth.digest", lambda salt, key: hashed.append(len(salt)) or digest(salt, key))
    keys.caller(bearer(key))
    for wrong in ("", "nonsense", key[:-1], "k" * 10_000):
        refused(keys, bearer(wrong))
    assert hashed == [32] * 5


def test_scopes_and_models(file: Path) -> None:
    key = add_key(file, "ada", scopes=("embed", "metrics"), models=("minilm",))
    caller = Keys(file).caller(bearer(key))
    caller.allow("embed")
    caller.allow()
    caller.allow("predict", "embed")
    caller.may_ask("minilm")
    with pytest.raises(Refusal, match="no scope 'predict'"):
        caller.allow("predict")
    with pytest.raises(Refusal, match="for minilm"):
        caller.may_ask("other")
    with pytest.raises(ConfigError, match="unknown scope 'fly'"):
        add_key(file, "ada", scopes=("fly",))


def test_rates_and_quotas_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_700_000_000.0]
    monkeypatch.setattr("bertsmith.serve.auth.time.time", lambda: now[0])
    key = Key(name="ada", salt="0" * 32, hash="0" * 64, requests_per_minute=2, tokens_per_day=100)
    caller = Caller("1", key)
    caller.allow("embed")
    caller.allow("embed")
    with pytest.raises(Refusal) as found:
        caller.allow("embed")
    assert (found.value.status_code, found.value.reason, found.value.headers) == (429, "rate", {"Retry-After": "30"})
    now[0] += 30
    caller.allow("embed")
    caller.charge(150)
    now[0] += 60
    with pytest.raises(Refusal) as found:
        caller.allow("embed")
    assert (found.value.status_code, found.value.reason) == (429, "quota")
    now[0] -= 2 * 86_400  # a clock that is put back gives nothing, and locks nobody out for long
    with pytest.raises(Refusal) as found:
        caller.allow("embed")
    assert found.value.reason == "quota"
    now[0] += 2 * 86_400
    now[0] += int(found.value.headers["Retry-After"]) if found.value.headers else 0
    caller.allow("embed")


def test_a_key_ends_on_its_day(file: Path) -> None:
    old = add_key(file, "ada", expires="2020-01-01")
    new = add_key(file, "ada", expires="2999-01-01T00:00:00+00:00")
    keys = Keys(file)
    assert refused(keys, bearer(old)) == 401
    keys.caller(bearer(new))


def test_rotation_without_restart_and_a_broken_file_changes_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertsmith.serve.auth.LOOK", 0)
    old = add_key(file, "ada", tokens_per_day=10)
    keys = Keys(file)
    keys.caller(bearer(old)).charge(10)
    new = add_key(file, "ada")
    keys.caller(bearer(new))
    with pytest.raises(Refusal, match="used up"):  # reading the file again gives nobody a new quota
        keys.caller(bearer(old)).allow("embed")
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2] + "\n[")
    keys.caller(bearer(new))
    file.unlink()
    keys.caller(bearer(new))
    file.write_text(whole)
    revoke_key(file, old.split("_")[1])
    assert refused(keys, bearer(old)) == 401
    keys.caller(bearer(new))


def test_a_file_that_cannot_be_used_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"keys\.toml: no such file; make one: bertsmith keys add"):
        Keys(file)
    file.write_text("[keys]\n")
    with pytest.raises(ConfigError, match="there is no key in it"):
        Keys(file)
    file.write_text('[keys.ab]\nname = "x"\nsalt = "1"\nhash = "2"\n')
    with pytest.raises(ConfigError, match=r"keys\.toml:3: setting 'keys\.ab\.salt'"):
        Keys(file)
    with pytest.raises(ConfigError, match="there is no key 12"):
        file.write_text("[keys]\n")
        revoke_key(file, "12")


def test_a_public_address_needs_keys_or_a_word() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        with pytest.raises(ConfigError, match="there are no keys"):
            check_address(host, keys=False, told=False)
        check_address(host, keys=True, told=False)
        check_address(host, keys=False, told=True)
    check_address("127.0.0.1", keys=False, told=False)


def test_the_command_line_makes_lists_and_revokes(file: Path, in_process: Callable[..., tuple[int, str, str]]) -> None:
    code, key, told = in_process("keys", "add", "ada", file, "--scope", "embed", "--per-minute", 60, "--days", 30)
    assert (code, "only time" in told) == (0, True)
    assert Keys(file).caller(bearer(key.strip())).key.scopes == ("embed",)
    code, shown, _ = in_process("keys", "list", file, "--json")
    (entry,) = json.loads(shown)
    assert (code, entry["name"], entry["requests_per_minute"], "hash" in entry) == (0, "ada", 60, False)
    assert "ada" in in_process("keys", "list", file)[1]
    assert in_process("keys", "revoke", entry["key"], file)[0] == 0
    assert read_keys(file).keys == {}
    code, _, told = in_process("keys", "revoke", entry["key"], file)
    assert (code, "there is no key" in told) == (2, True)
    assert in_process("keys", "add", "ada", file, "--scope", "fly")[0] == 2
    for days in ("inf", "1e9"):
        code, _, told = in_process("keys", "add", "ada", file, "--days", days)
        assert (code, "leave it out" in told) == (2, True), days
    assert read_keys(file).keys == {}


@pytest.fixture(scope="module")
def guarded(start: Any, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service with keys and an audit, and the keys."""
    folder = tmp_path_factory.mktemp("keys")
    file = folder / "keys.toml"
    keys = {
        "all": add_key(file, "ada", scopes=("predict", "embed", "metrics", "admin")),
        "embed": add_key(file, "bert", scopes=("embed",)),
        "scrape": add_key(file, "prometheus", scopes=("metrics",)),
        "other": add_key(file, "clara", models=("other",)),
        "small": add_key(file, "david", requests_per_minute=1),
    }
    audit = folder / "audit.jsonl"
    return start(bundles / "classify", "--keys", file, "--audit", audit), keys, audit, file


def test_all_routes_but_liveness_are_guarded(guarded: Any) -> None:
    served, keys, audit, _ = guarded
    assert served.get("/health/live").status_code == 200
    head = httpx.head(f"{served.url}/health/live")
    assert (head.status_code, head.content, int(head.headers["content-length"]) > 0) == (200, b"", True)
    assert httpx.head(f"{served.url}/metrics").status_code == 401
    for path in ("/models", "/info", "/health/ready", "/metrics", "/openapi.json", "/v1/models", "/nothing", "/docs"):
        answer = served.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
        assert served.get(path, **bearer(keys["all"])).status_code == (404 if path in ("/nothing", "/docs") else 200)
    body = {"inputs": "a good film"}
    found = [served.post("/predict", body, **bearer(keys[name])).status_code for name in ("all", "embed", "other")]
    assert found == [200, 403, 403]
    assert served.get("/metrics", **bearer(keys["embed"])).status_code == 403
    assert served.post("/models/classify/reload", None, **bearer(keys["embed"])).status_code == 403
    # A line end behind a path matches its route, and must not escape the scopes that the route asks for.
    for name in ("embed", "scrape"):
        for path in ("/metrics%0A", "/metrics%0D", "/metrics%00"):
            assert served.get(path, **bearer(keys[name])).status_code == 404
        assert served.post("/models/classify/reload%0A", None, **bearer(keys[name])).status_code == 404
    assert served.post("/tokenize", body, **bearer(keys["embed"])).status_code == 200
    assert served.post("/tokenize", body, **bearer(keys["scrape"])).status_code == 403
    long = served.post("/tokenize", {"inputs": "a " * 30_000}, **bearer(keys["all"]))
    assert (long.status_code, "at most 50,000 are cut" in long.json()["error"]) == (413, True)
    assert served.post("/predict", body).json()["error_type"] == "unauthorized"
    assert served.post("/v1/embeddings", body).json()["error"]["code"] == "unauthorized"
    first, second = (served.post("/predict", body, **bearer(keys["small"])) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 429)
    assert int(second.headers["retry-after"]) > 0

    def entries() -> list[Any]:
        return [json.loads(line) for line in audit.read_text().splitlines(keepends=True) if line.endswith("\n")]

    # The audit is written once the answer is out, so the last line may come a moment after it.
    served.until(lambda: {"david"} == {line.get("caller") for line in entries() if line["status"] == 429})
    lines = entries()
    answered = [line for line in lines if line.get("caller") == "ada" and line["route"] == "/predict"]
    again = [line for line in lines if line.get("caller") == "david" and line["status"] == 200]
    assert answered[0]["texts"] == again[0]["texts"] != ""
    assert answered[0]["tokens"] == 5
    assert "good film" not in audit.read_text()
    assert {line["status"] for line in lines} >= {200, 401, 403, 429}
    assert keys["all"] not in audit.read_text() + served.log.read_text()


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (b"Bearer \xc3\xa9\xff" + b"\xe5" * 40, 401),
        (b"Bearer " + b"k" * 30_000, 401),
        (b"Bearer " + b"k" * 40_000, 431),
        (b"Bearer", 401),
        (b"", 401),
    ],
)
def test_odd_keys_over_http(guarded: Any, key: bytes, status: int) -> None:
    served, _, _, _ = guarded
    for name in (b"authorization", b"x-api-key"):
        answer = httpx.post(
            served.url + "/predict", json={"inputs": "a"}, headers=httpx.Headers([(name, key)]), timeout=60
        )
        assert answer.status_code == status
        assert "kkkk" not in answer.text


def test_keys_change_while_the_service_runs(guarded: Any) -> None:
    served, keys, _, file = guarded
    new = add_key(file, "eva", scopes=("predict",))
    revoke_key(file, keys["embed"].split("_")[1])
    time.sleep(1.1)
    assert served.post("/predict", {"inputs": "a"}, **bearer(new)).status_code == 200
    assert served.post("/embed", {"inputs": "a"}, **bearer(keys["embed"])).status_code == 401
    assert served.post("/models/classify/reload", None, **bearer(keys["all"])).status_code == 200


def test_no_page_of_elsewhere_may_call(guarded: Any) -> None:
    served, keys, _, _ = guarded
    answer = served.get("/models", origin="https://evil.example", **bearer(keys["all"]))
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_tls_and_the_one_page_that_may_call(start: Any, bundles: Path, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here to make a certificate")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([openssl, *words.split(), *files, *names], check=True, capture_output=True)
    tls = ["--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem"]
    served = start(bundles / "classify", *tls, "--set", 'cors=["https://shop.example"]')
    url = f"https://127.0.0.1:{served.port}/models"
    trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    answer = httpx.get(url, verify=trusted, headers={"origin": "https://shop.example"}, timeout=60)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://shop.example")
    assert "x-truncated" in answer.headers["access-control-expose-headers"]
    other = httpx.get(url, verify=trusted, headers={"origin": "https://evil.example"}, timeout=60)
    assert "access-control-allow-origin" not in other.headers
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, timeout=60)
    locked = tmp_path / "locked.pem"
    words = ["pkey", "-in", tmp_path / "key.pem", "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run([openssl, *words], check=True, capture_output=True)
    with pytest.raises(ConfigError, match=r"locked\.pem: is encrypted; .* openssl pkey"):
        check_tls(tmp_path / "cert.pem", locked)


@pytest.mark.parametrize("origin", ["https://a.example/", "a.example", "https://a.example/x", "ftp://a", "null"])
def test_what_no_browser_sends_is_no_origin(origin: str) -> None:
    with pytest.raises(ConfigError, match="is no origin"):
        load(ServeConfig, sets=[f'cors=["{origin}"]'])
    assert load(ServeConfig, sets=['cors=["*", "http://localhost:3000"]']).cors == ("*", "http://localhost:3000")


def test_a_prefix_before_all_paths_opens_nothing(file: Path) -> None:
    """As behind a proxy that passes the prefix on, or below a route_prefix of Ray Serve."""
    key = add_key(file, "ada", scopes=("predict",))
    transport = httpx.ASGITransport(build_app(Service([("m", "no folder")], keys=str(file))), root_path="/api")

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            embed = await client.post("/api/embed", json={"inputs": "a"}, headers=bearer(key))
            predict = await client.post("/api/predict", json={"inputs": "a"}, headers=bearer(key))
            reload = await client.post("/api/models/m/reload", headers=bearer(key))
            return [embed, predict, reload, await client.get("/api/health/live"), await client.get("/api/v1/models")]

    embed, predict, reload, live, openai = asyncio.run(ask())
    assert (embed.status_code, reload.status_code) == (403, 403)
    assert (predict.status_code, live.status_code) == (503, 503), "allowed; there is no worker"
    assert (openai.status_code, openai.json()["error"]["code"]) == (401, "unauthorized")
