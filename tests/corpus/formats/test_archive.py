"""Archives: members in order without unpacking, and what is dangerous or damaged counted or refused."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.formats import archive
from bertsmith.corpus.readers import read

MEMBERS = {
    "b/two.txt": b"Second text.\n\nThird text.\n",
    "one.jsonl": b'{"text": "First."}\n',
    "c.csv.gz": gzip.compress("text\n潮水。\n".encode()),
    ".hidden.txt": b"x",
    "__MACOSX/c.txt": b"x",
    "picture.png": b"\x89PNG",
    "d.zip": b"PK",
}


def _zip(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def _tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def _read(path: Path, tally: Tally) -> list[Document]:
    return list(read([str(path)], tally))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.txz", "a.tar.zst"])
def test_members_are_read_by_their_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.zip":
        _zip(path, MEMBERS)
    elif name.endswith(".zst"):
        zstandard = pytest.importorskip("zstandard")
        path.write_bytes(zstandard.ZstdCompressor().compress(_tar(tmp_path / "x", MEMBERS).read_bytes()))
        (tmp_path / "x").unlink()
    else:
        _tar(
            path, MEMBERS, {"tar": "w", "gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "txz": "w:xz"}[name.split(".")[-1]]
        )
    tally = Tally()
    documents = _read(tmp_path, tally)
    assert [document.text for document in documents] == ["Second text.", "Third text.", "First.", "潮水。"]
    assert (documents[1].id, documents[1].source) == (f"{path}/b/two.txt:3", f"{path}/b/two.txt")
    assert tally.counts == {"unknown_kind_of_file": 1, "archive_in_archive": 1}


@pytest.mark.parametrize("make", [_zip, _tar])
def test_names_that_lead_out_are_counted_and_nothing_is_written(tmp_path: Path, make: object) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt"]
    path = folder / ("a.zip" if make is _zip else "a.tar")
    make(path, {**dict.fromkeys(names, b"x"), "fine.txt": b"fine"})  # type: ignore[operator]
    tally = Tally()
    assert [document.text for document in _read(path, tally)] == ["fine"]
    assert tally.counts == {"archive_member_leads_out": 5}
    assert sorted(tmp_path.rglob("*")) == [folder, path]


def test_links_devices_and_encrypted_members_are_counted(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.addfile(link)
    symbolic, secret = zipfile.ZipInfo("link.txt"), zipfile.ZipInfo("secret.txt")
    symbolic.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as zipped:
        zipped.writestr(symbolic, "/etc/passwd")
        zipped.writestr(secret, "x")
        secret.flag_bits |= 1
    tally = Tally()
    with pytest.raises(DataError, match="no text in 2 files"):
        _read(tmp_path, tally)
    assert tally.counts == {"archive_link_or_device": 2, "archive_member_encrypted": 1, "empty_archive": 2}


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_bomb_is_stopped(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_FREE", 1 << 20)
    members = {f"{n}.txt": b"bomb " * 400_000 for n in range(8)}
    path = _zip(tmp_path / name, members) if name == "a.zip" else _tar(tmp_path / name, members, "w:gz")
    with pytest.raises(DataError, match=rf"{name}.*: [\d,]+ bytes unpack to more than [\d,]+, as a zip bomb would"):
        _read(path, Tally())


def test_a_member_that_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "some text")
    path.write_bytes(path.read_bytes().replace(b"some text", b"some test"))
    with pytest.raises(DataError, match=r"a\.zip/a\.txt: cannot be read after byte .*Bad CRC-32"):
        _read(path, Tally())


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2"])
def test_an_archive_that_is_cut_off(tmp_path: Path, name: str) -> None:
    members = {f"{n}.txt": b"".join(b"%d " % (i * 7919 % 10007) for i in range(90_000)) for n in range(3)}
    mode = {"gz": "w:gz", "bz2": "w:bz2"}.get(name.split(".")[-1], "w")
    path = _zip(tmp_path / name, members) if name == "a.zip" else _tar(tmp_path / name, members, mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"{name}.*(is cut off|unexpected end of data)"):
        _read(path, Tally())


def test_what_is_no_archive(tmp_path: Path) -> None:
    for name in ("a.zip", "a.tar"):
        (tmp_path / name).write_bytes(b"text" * 1000)
        with pytest.raises(DataError, match=rf"{name}: is no (ZIP|tar) archive"):
            _read(tmp_path / name, Tally())
