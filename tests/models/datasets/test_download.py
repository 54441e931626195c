"""Downloads: checksums, archives, failures; from local files only."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from lepton.errors import InputError
from lepton.models.datasets.download import SOURCES, RemoteFile, Source, download, main


def served(folder: Path, name: str, content: bytes, kind: str = "sha256") -> Source:
    """Return a source of one local file."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    checksum = f"{kind}:{hashlib.new(kind, content).hexdigest()}"
    return Source(f"{folder.as_uri()}/", (RemoteFile(name, checksum),), "none")


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_fetches_once(tmp_path: Path, kind: str) -> None:
    source = served(tmp_path / "remote", "a.bin", b"x" * 3_000_000, kind)
    (path,) = download("mine", tmp_path / "here" / "deep", source)
    assert path.read_bytes() == b"x" * 3_000_000
    (tmp_path / "remote" / "a.bin").unlink()
    assert download("mine", tmp_path / "here" / "deep", source) == [path]
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be fetched"):
        download("mine", tmp_path / "here" / "deep", source)
    assert [item.name for item in path.parent.iterdir()] == ["a.bin"]


def test_a_wrong_checksum_leaves_nothing(tmp_path: Path) -> None:
    source = served(tmp_path / "remote", "a.bin", b"right")
    (tmp_path / "remote" / "a.bin").write_bytes(b"wrong")
    with pytest.raises(InputError, match="its checksum must be sha256:"):
        download("mine", tmp_path / "here", source)
    assert not list((tmp_path / "here").iterdir())


def archive(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as writer:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            writer.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_archives_are_unpacked(tmp_path: Path) -> None:
    source = served(tmp_path / "remote", "a.tar.gz", archive(("batches/one.bin", b"1")))
    download("mine", tmp_path / "here", source)
    assert (tmp_path / "here" / "batches" / "one.bin").read_bytes() == b"1"


def test_archives_stay_in_their_folder(tmp_path: Path) -> None:
    source = served(tmp_path / "remote", "a.tar.gz", archive(("../out.bin", b"1")))
    with pytest.raises(InputError, match="cannot be unpacked"):
        download("mine", tmp_path / "here", source)
    assert not (tmp_path / "out.bin").exists()


def test_unknown_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="must be one of mnist, fashion-mnist, cifar10, not 'x'"):
        download("x", tmp_path)
    with pytest.raises(SystemExit):
        main(["x", str(tmp_path)])
    assert "invalid choice" in capsys.readouterr().err


def test_every_source_has_checksums() -> None:
    for source in SOURCES.values():
        assert source.licence and source.base.endswith("/")
        for file in source.files:
            kind, _, digest = file.checksum.partition(":")
            assert len(digest) == hashlib.new(kind).digest_size * 2


def test_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = served(tmp_path / "remote", "a.bin", b"right")
    monkeypatch.setattr("lepton.models.datasets.download.SOURCES", {"mnist": source})
    assert main(["mnist", str(tmp_path / "here")]) == 0
    assert "a.bin" in capsys.readouterr().out
    (tmp_path / "remote" / "a.bin").unlink()
    assert main(["mnist", str(tmp_path / "there")]) == 2
    assert "cannot be fetched" in capsys.readouterr().err
