"""Text behind URLs: fsspec's own memory, and a web server of this machine, with ranges and without."""

from __future__ import annotations

import gzip
import json
import re
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.runner import Crew
from bertsmith.corpus import remote
from bertsmith.corpus.document import Tally
from bertsmith.corpus.readers import listed, read
from bertsmith.corpus.source import Source
from bertsmith.tasks.preparation import prepare
from bertsmith.tokenizer.load import Tokenizer

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

PROSE = "The tide rose before noon and covered the steps.\n\nNobody had told the fishermen.\n"


class Web:
    """A web server: its files by path, what it was asked for, and how it treats ranges."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.ranges = True
        self.fail_next = 0
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = request.path.partition("?")[0]
        asked = request.headers.get("Range", "")
        if body:
            self.asked.append(f"{path} {asked}".strip())
        data = self.files.get(path)
        if data is None:
            request.send_error(404)
            return
        if body and self.fail_next:
            self.fail_next -= 1
            request.send_error(503)
            return
        if self.ranges and (found := re.fullmatch(r"bytes=(\d+)-(\d+)", asked)):
            begin, end = int(found[1]), min(int(found[2]), len(data) - 1)
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {begin}-{end}/{len(data)}")
            data = data[begin : end + 1]
        else:
            request.send_response(200)
        request.send_header("Accept-Ranges", "bytes" if self.ranges else "none")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if body:
            request.wfile.write(data)


@pytest.fixture
def web() -> Iterator[Web]:
    served = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self, body=True)

        def do_HEAD(self) -> None:
            served.answer(self, body=False)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def store() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


def _zipped(text: str) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("in.txt", text)
    return file.getvalue()


def test_a_folder_of_an_object_store_is_read_like_one_on_disk(store: Any) -> None:
    store.pipe("/bucket/text/b/c.txt.gz", gzip.compress("你好。".encode()))
    store.pipe("/bucket/text/a.csv", b"title,words\nOne,first\n")
    store.pipe("/bucket/text/z.zip", _zipped("zipped"))
    store.pipe("/bucket/text/.hidden/x.txt", b"hidden")
    store.pipe("/bucket/text/x.bin", b"1")
    tally = Tally()
    found = list(read(["memory://bucket/text#words"], tally))
    assert [(document.id, document.text) for document in found] == [
        ("memory:///bucket/text/a.csv:2", "first"),
        ("memory:///bucket/text/b/c.txt.gz:1", "你好。"),
        ("memory:///bucket/text/z.zip/in.txt:1", "zipped"),
    ]
    assert tally.counts == {"unknown_kind_of_file": 1}
    assert [document.text for document in read(["memory://bucket/text/*/*.gz"], Tally())] == ["你好。"]


def test_what_is_not_there_or_cannot_be_read_is_said(store: Any, web: Web) -> None:
    store.pipe("/bucket/x.bin", b"1")
    for url, message in (
        ("memory://bucket/none.txt", "none.txt: no such file or folder .*; check the address"),
        ("memory://bucket/x.bin", r"x\.bin: unknown kind of file '\.bin'"),
        ("memory://bucket", r"memory://bucket: no text file is there \(1 others\)"),
        ("nope://x/y.txt", "Protocol not known: nope"),
        (f"{web.url}/none.txt", "none.txt: no such file or folder|none.txt: cannot be read .*404"),
        (f"{web.url}/folder/", "folders of a web server are not searched; name its files"),
        ("http://127.0.0.1:9/x.txt", "cannot be read .*Cannot connect to host 127.0.0.1:9"),
    ):
        with pytest.raises(DataError, match=message):
            read([url], Tally())


@pytest.mark.parametrize("ranges", [True, False])
def test_files_of_a_web_server(web: Web, ranges: bool) -> None:
    web.ranges = ranges
    web.files = {"/a.txt": PROSE.encode(), "/b.txt.gz": gzip.compress(b"packed"), "/c.zip": _zipped("zipped")}
    urls = [f"{web.url}/{name}" for name in ("a.txt", "b.txt.gz", "c.zip")]
    texts = [document.text for document in read(urls, Tally())]
    assert texts == [*PROSE.strip().split("\n\n"), "packed", "zipped"]
    assert next(document.id for document in read([f"{web.url}/a.txt?edition=4"], Tally())) == (
        f"{web.url}/a.txt?edition=4:1"
    )


def test_a_large_file_comes_in_pieces_and_needs_little_memory(web: Web) -> None:
    web.files = {"/large.txt": b"A line of some words that are read.\n" * (64 << 20 >> 5)}
    (source,) = listed([f"{web.url}/large.txt"], Tally())
    assert isinstance(source, Source)
    tracemalloc.start()
    try:
        size = sum(map(len, source.chunks(Tally())))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == source.size > 64_000_000
    assert sum(line.startswith("/large.txt bytes=") for line in web.asked) >= 10
    # A piece is 5 MB; the server, of the same process, holds some copies of it, too.
    assert peak < 40_000_000


def test_a_piece_that_does_not_come_is_asked_for_again(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSES", (0.01, 0.01))
    web.files = {"/a.txt": PROSE.encode()}
    web.fail_next = 2
    assert len(list(read([f"{web.url}/a.txt"], Tally()))) == 2
    web.fail_next = 3
    with pytest.raises(DataError, match=r"a\.txt: cannot be read after byte 0: .*503"):
        list(read([f"{web.url}/a.txt"], Tally()))


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("https://reader:hunter2@example.org/x.txt", "what stands before the @"),
        ("https://ghp_hunter2@example.org/x.txt", "what stands before the @"),
        ("s3://AKIA:hunter2@bucket/x.txt", "what stands before the @"),
        ("https://example.org/x.txt?X-Amz-Signature=hunter2&part=3", "X-Amz-Signature"),
        ("https://example.org/x.txt?access_token=hunter2", "access_token"),
        ("https://example.org/x.txt?AWSAccessKeyId=hunter2", "AWSAccessKeyId"),
        ("simplecache::https://example.org/x.txt?sig=hunter2", "sig"),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str, what: str) -> None:
    with pytest.raises(ConfigError, match=rf"this URL holds credentials \({what}\).*environment") as caught:
        read([url], Tally())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://example.org/x.txt?author=a&design=b&id=4", "hdfs://me@host/x.txt"])
def test_other_urls_are_no_credentials(url: str) -> None:
    try:
        remote.refuse_credentials(url)
    except ConfigError as error:
        pytest.fail(f"refused: {error}")


def test_a_refused_url_leaves_nothing_in_a_run(tmp_path: Path) -> None:
    from bertsmith.train.pretrain import PretrainConfig, pretrain

    with pytest.raises(ConfigError, match="this URL holds credentials"):
        pretrain(["https://reader:hunter2@example.org/x.txt"], tmp_path / "run", PretrainConfig(), quiet=True)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]


def test_without_fsspec_or_a_store_s_own_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"gs://bucket/x\.txt: .*gcsfs.*other stores need theirs"):
        read(["gs://bucket/x.txt"], Tally())
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: module != "fsspec")
    with pytest.raises(ConfigError, match=r"reading s3://bucket/x\.txt needs the package fsspec.*bertsmith\[remote\]"):
        read(["s3://bucket/x.txt"], Tally())


def test_ranks_share_files_and_each_is_fetched_once(toy_tokenizer: Tokenizer, web: Web, tmp_path: Path) -> None:
    web.files = {f"/{number}.txt": (PROSE + "\n\n").encode() * 40 for number in range(3)}
    urls = [f"{web.url}/{number}.txt" for number in range(3)]
    stores = []
    for ranks in (1, 2):
        web.asked.clear()
        made = prepare(urls, toy_tokenizer, tmp_path / str(ranks), print, crew=Crew(ranks))
        assert sorted({line.split()[0] for line in web.asked}) == ["/0.txt", "/1.txt", "/2.txt"]
        assert len(web.asked) == 3
        stores.append({path.name: path.read_bytes() for path in made.path.glob("*.*")})
    assert stores[0] == stores[1]
    assert json.loads(stores[0]["manifest.json"])["settings"]["inputs"] == urls
