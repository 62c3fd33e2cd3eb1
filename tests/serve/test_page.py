"""The page at `/`, in a real browser: every route by hand, both languages, keys, and text that wants to be script."""

from __future__ import annotations

import base64
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bertsmith.serve.auth import ANSWERS

ATTACK = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""Under which WebDriver names an element (W3C WebDriver, 12.1)."""


class Browser:
    """Chromium, asked by the WebDriver protocol."""

    def __init__(self, url: str) -> None:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--lang=en"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += ["--disable-dev-shm-usage", "--window-size=1280,1000"]
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self.url = url
        session = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.url = f"{url}/session/{session['sessionId']}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(method, self.url + path, json=body, timeout=120)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def open(self, url: str) -> None:
        self.ask("POST", "/url", {"url": url})

    def run(self, script: str, *words: Any) -> Any:
        """What a script returns. The page's own policy does not hold for it."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(words)})

    def until(self, script: str, *words: Any) -> Any:
        end = time.monotonic() + 90
        while not (found := self.run(script, *words)):
            assert time.monotonic() < end, (script, self.run("return document.body.innerText"), self.messages())
            time.sleep(0.2)
        return found

    def fill(self, field: str, text: str) -> None:
        found = self.ask("POST", "/element", {"using": "css selector", "value": f"#{field}"})[ELEMENT]
        self.ask("POST", f"/element/{found}/clear", {})
        self.ask("POST", f"/element/{found}/value", {"text": text})

    def choose(self, field: str, value: str) -> None:
        self.run(
            "const field = document.getElementById(arguments[0]);"
            "field.value = arguments[1]; field.dispatchEvent(new Event('change'))",
            field,
            value,
        )

    def click(self, field: str) -> None:
        found = self.ask("POST", "/element", {"using": "css selector", "value": f"#{field}"})[ELEMENT]
        self.ask("POST", f"/element/{found}/click", {})

    def send(self) -> str:
        """Press the button; what the page then shows as the answer."""
        self.run("document.getElementById('out').replaceChildren()")
        self.click("send")
        self.until(
            "return document.getElementById('out').childElementCount && !document.getElementById('send').disabled"
        )
        return str(self.run("return document.getElementById('out').innerText"))

    def messages(self) -> list[str]:
        """What the browser complains of."""
        return [line["message"] for line in self.ask("POST", "/se/log", {"type": "browser"})]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("GET", "/screenshot")))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip("no browser here; Debian's packages chromium and chromium-driver have it")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    log = tmp_path_factory.mktemp("browser") / "log"
    with open(log, "wb") as file:
        process = subprocess.Popen([driver, f"--port={port}"], stdout=file, stderr=file)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/status", timeout=10)
                break
            except httpx.TransportError:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)
        found = Browser(f"http://127.0.0.1:{port}")
        yield found
        found.ask("DELETE", "")
    finally:
        process.terminate()
        process.wait(30)


def test_the_page_loads_nothing_and_lets_nothing_else_run(served: Any) -> None:
    answer = served.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert all(re.fullmatch("'sha256-[^ ]+'", policy[name]) for name in ("script-src", "style-src"))
    assert not re.findall(r"(?:src|href)=|@import|url\(|innerHTML|insertAdjacentHTML|outerHTML|eval\(", answer.text)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|localStorage|sessionStorage|cookie", answer.text)


@pytest.mark.timeout(900)
def test_each_route_is_tried_by_hand(served: Any, browser: Browser, tmp_path: Path) -> None:
    browser.open(served.url)
    browser.until("return !document.getElementById('ask').hidden")
    routes = "return Array.from(document.getElementById('route').options, (o) => o.value)"
    tried = set()
    for model in ("classify", "match", "vectors", "tag", "answer", "relate", "choose", "pretraining"):
        browser.choose("model", model)
        for route in browser.run(routes):
            browser.choose("route", route)
            shown = browser.send()
            assert shown.strip()
            assert not browser.run("return document.querySelector('#out .bad')"), (model, route, shown)
            assert "version" in browser.run("return document.getElementById('cost').innerText")
            tried.add((model, route))
    assert {route for _, route in tried} == {f"/{name}" for name in ANSWERS}
    assert {("tag", "/ner"), ("answer", "/qa"), ("pretraining", "/fill-mask"), ("vectors", "/rerank")} <= tried

    browser.choose("model", "choose")
    browser.choose("route", "/predict")
    browser.run("document.getElementById('choices').value = 'anna\\nbert\\na film'")
    assert all(choice in browser.send() for choice in ("anna", "bert", "a film"))
    assert browser.run("return document.querySelectorAll('#out .bar').length") == 3
    browser.choose("model", "tag")
    browser.choose("route", "/ner")
    text = "😀 ada lives in 伦敦 and " + ATTACK
    browser.run("document.getElementById('text').value = arguments[0]", text)
    browser.send()
    marked = browser.run("return Array.from(document.querySelectorAll('#out mark'), (m) => m.firstChild.textContent)")
    got = served.post("/ner", {"inputs": text, "model": "tag"}).json()
    ends = [0]
    for one in sorted(got, key=lambda one: (one["start"], one["end"])):
        ends += [one["end"]] if one["start"] >= ends[-1] else []
    assert [text[one["start"] : one["end"]] for one in got if one["end"] in ends] == marked
    assert marked
    browser.choose("model", "classify")
    browser.choose("route", "/predict")
    browser.run("document.getElementById('text').value = arguments[0]", ATTACK)
    assert ATTACK in browser.send()
    pieces = "return Array.from(document.querySelectorAll('#pieces .piece'), (p) => p.textContent)"
    assert browser.run(pieces) == [], "they are asked for when they are looked at"
    browser.run("document.getElementById('pieces_section').open = true")
    browser.until(f"{pieces}.length > 2")
    (read,) = served.post("/tokenize", {"inputs": ATTACK, "model": "classify"}).json()
    assert browser.run(pieces) == [piece["text"] for piece in read]
    assert browser.run("return document.title") == "bertsmith"
    assert browser.run("return document.querySelectorAll('#out img, #out script').length") == 0
    assert not browser.messages(), "the page breaks its own policy"
    browser.picture(tmp_path / "en.png")

    assert browser.run("return Object.keys(WORDS.en).sort().join() === Object.keys(WORDS.zh).sort().join()")
    browser.click("language")
    assert browser.run("return document.documentElement.lang") == "zh-CN"
    assert browser.run("return Array.from(document.querySelectorAll('[data-t]')).every((n) => n.textContent !== '')")
    assert "试一试" in browser.run("return document.body.innerText")
    browser.until("return document.querySelectorAll('#charts polyline').length === 6")
    browser.until("return document.querySelector('#charts polyline').getAttribute('points').split(' ').length > 1")
    browser.picture(tmp_path / "zh.png")
    print(f"screenshots in {tmp_path}")


@pytest.mark.timeout(600)
def test_a_name_that_would_like_to_be_script_is_text(
    start: Any, browser: Browser, write_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    name = "<b><i>m<script>alert(1)<b>"
    labels = ["<i>bad<i>", "good"]
    folder = write_bundle(tmp_path / "m", "classify", labels=labels)
    served = start(f"{name}={folder}")
    browser.open(served.url)
    browser.until("return !document.getElementById('ask').hidden")
    browser.send()
    assert name in browser.run("return document.getElementById('models').innerText")
    assert browser.run("return document.querySelectorAll('b, i').length") == browser.run(
        "return document.querySelectorAll('.chart b').length"
    )
    assert not browser.messages()


@pytest.mark.timeout(600)
def test_with_keys_the_page_asks_for_one_and_forgets_it(
    start: Any, browser: Browser, bundles: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "bertsmith.cli.main", "keys", "add", "me", str(tmp_path / "keys.toml")]
    key = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    served = start(f"m={bundles / 'classify'}", "--keys", tmp_path / "keys.toml")
    assert served.get("/").status_code == 200
    assert served.get("/models").status_code == 401
    browser.open(served.url)
    browser.until("return !document.getElementById('door').hidden")
    assert not browser.run("return document.body.innerText.includes('classify')")
    browser.fill("key", key[:-1])
    browser.run("document.getElementById('key_form').requestSubmit()")
    browser.until("return document.getElementById('key_trouble').textContent !== ''")
    browser.fill("key", key)
    browser.run("document.getElementById('key_form').requestSubmit()")
    browser.until("return !document.getElementById('ask').hidden")
    assert "good" in browser.send()
    browser.until("return !document.getElementById('live_trouble').hidden")  # the key has no scope metrics
    kept = "return localStorage.length + sessionStorage.length + document.cookie.length"
    assert browser.run(kept) == 0
    assert key not in browser.run("return document.documentElement.outerHTML")
    browser.picture(tmp_path / "key.png")
    browser.open(served.url)
    browser.until("return !document.getElementById('door').hidden")
