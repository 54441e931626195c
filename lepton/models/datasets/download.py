"""Fetch the files of well-known data sets and compare them with their published checksums.

`python -m lepton.models.datasets.download NAME FOLDER` does so.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from lepton.errors import InputError, LeptonError

__all__ = ["SOURCES", "RemoteFile", "Source", "download"]

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class RemoteFile:
    """One file: its name and its checksum, `md5:...` or `sha256:...`, as its owner publishes it."""

    name: str
    checksum: str


@dataclass(frozen=True)
class Source:
    """Where a data set is.

    Attributes:
        base: URL that the names are appended to.
        files: what to fetch.
        licence: under which it is given, and whom to cite.
    """

    base: str
    files: tuple[RemoteFile, ...]
    licence: str


def _idx_files(*checksums: str) -> tuple[RemoteFile, ...]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(
        RemoteFile(f"{name}-ubyte.gz", f"md5:{checksum}")
        for name, checksum in zip(names, checksums, strict=True)
    )


SOURCES: Mapping[str, Source] = {
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        _idx_files(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        "CC BY-SA 3.0; Y. LeCun, C. Cortes, C. Burges, the MNIST database of handwritten digits",
    ),
    "fashion-mnist": Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        _idx_files(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        "MIT; H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, 2017",
    ),
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/",
        (RemoteFile("cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530"),),
        "for research; cite A. Krizhevsky, Learning Multiple Layers of Features, 2009",
    ),
}  # fmt: skip


def download(name: str, folder: Path | str, source: Source | None = None) -> list[Path]:
    """Fetch a data set's files into a folder, and unpack archives beside themselves.

    A file that is there with the right checksum is not fetched again; a file appears only after its
    checksum was found right.

    Args:
        name: in `SOURCES`, or of `source` in messages.
        folder: made if it is missing.
        source: another place with its own checksums, a mirror for example.

    Returns:
        The files.

    Raises:
        InputError: no such data set, a file cannot be fetched, or its checksum is wrong.
    """
    if source is None and name not in SOURCES:
        raise InputError(f"data set must be one of {', '.join(SOURCES)}, not '{name}'")
    chosen = SOURCES[name] if source is None else source
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for file in chosen.files:
        path = target / file.name
        if not path.is_file() or _checksum(path, file.checksum) != file.checksum:
            _fetch(chosen.base + file.name, path, file.checksum)
        paths.append(path)
        if path.name.endswith(".tar.gz"):
            _unpack(path)
    return paths


def _checksum(path: Path, like: str) -> str:
    """Return a file's checksum of the kind of another."""
    kind = like.partition(":")[0]
    with path.open("rb") as stream:
        return f"{kind}:{hashlib.file_digest(stream, kind).hexdigest()}"


def _fetch(url: str, path: Path, checksum: str) -> None:
    """Write what a URL gives to a file, if its checksum is right."""
    from urllib.request import urlopen

    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as target:
            try:
                with urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
                    _copy(response, target, path.name)
            except (OSError, ValueError, HTTPException) as error:
                raise InputError(f"{url}: cannot be fetched: {error}") from None
        found = _checksum(Path(temporary), checksum)
        if found != checksum:
            raise InputError(f"{url}: its checksum must be {checksum}, not {found}; try again")
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _copy(response: Any, target: Any, label: str) -> None:
    """Copy a response behind a progress bar, on a terminal."""
    from tqdm import tqdm

    length = response.headers.get("Content-Length")
    total = int(length) if length and length.isdigit() else None
    with tqdm(total=total, desc=label, unit="B", unit_scale=True, disable=None) as progress:
        while chunk := response.read(_CHUNK):
            target.write(chunk)
            progress.update(len(chunk))


def _unpack(path: Path) -> None:
    """Unpack an archive into its folder; the filter `data` refuses links and paths out of it."""
    try:
        with tarfile.open(path) as archive:
            archive.extractall(path.parent, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be unpacked: {error}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit code 2 if nothing could be fetched."""
    parser = argparse.ArgumentParser(prog="python -m lepton.models.datasets.download")
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    try:
        paths = download(options.name, options.folder)
    except LeptonError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{SOURCES[options.name].licence}\n")
    sys.stdout.writelines(f"{path}\n" for path in paths)
    return 0


if __name__ == "__main__":
    sys.exit(main())
