"""Readers of data sets' files: what they return, and one sentence for every damaged file."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from lepton.errors import InputError, LeptonError
from lepton.models import extras
from lepton.models.datasets import (
    Dataset,
    hold_out,
    load_cifar10,
    load_digits,
    load_image_folder,
    load_mnist,
    read_idx,
)
from lepton.models.datasets.idx import GARMENT_NAMES


def idx_bytes(values: np.ndarray) -> bytes:
    """Return an array of bytes as an IDX file."""
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + values.tobytes()


def write_mnist(folder: Path, count: int = 6, *, packed: bool = True) -> np.ndarray:
    """Write a tiny set of MNIST's format, train and test, and return the images."""
    images = np.arange(count * 784, dtype=np.int64).astype(np.uint8).reshape(count, 28, 28)
    labels = (np.arange(count) % 10).astype(np.uint8)
    for prefix in ("train", "t10k"):
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx_bytes(values)
            name = f"{prefix}-{kind}-ubyte" + (".gz" if packed else "")
            (folder / name).write_bytes(gzip.compress(content, 1) if packed else content)
    return images


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_files(tmp_path: Path, packed: bool) -> None:
    images = write_mnist(tmp_path, packed=packed)
    for part in ("train", "test"):
        loaded = load_mnist(tmp_path, part, GARMENT_NAMES)
        np.testing.assert_array_equal(loaded.inputs[0][:, 0], images)
        np.testing.assert_array_equal(loaded.labels, np.arange(6) % 10)
        assert loaded.classes[9] == "boot"
    batch = loaded.batch(slice(0, 2))[0]
    assert (batch.dtype, batch.max()) == (np.float32, 1.0)


def hostile_idx() -> dict[str, tuple[bytes, str]]:
    whole = idx_bytes(np.zeros((2, 3), np.uint8))
    return {
        "empty": (b"", "not an IDX file"),
        "other": (b"PK\x03\x04" + bytes(20), "not an IDX file"),
        "no dimension": (bytes([0, 0, 8, 0]), "not an IDX file"),
        "floats": (bytes([0, 0, 13, 1]) + bytes(8), "not type 13"),
        "short header": (whole[:9], "header is cut off"),
        "short": (whole[:-1], "6 values are stated, and the file has 5"),
        "long": (whole + b"x", "6 values are stated, and the file has more"),
        "huge": (bytes([0, 0, 8, 2]) + b"\xff" * 8, "exceeds 1 GiB"),
        "many dimensions": (bytes([0, 0, 8, 255]) + b"\xff" * 1020, "exceeds 1 GiB"),
        "cut gzip": (gzip.compress(whole)[:-9], "damaged or cut off"),
        "no gzip": (b"\x1f\x8b" + bytes(30), "damaged or cut off"),
    }


@pytest.mark.parametrize("name", hostile_idx())
def test_hostile_idx_files(tmp_path: Path, name: str) -> None:
    content, message = hostile_idx()[name]
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_idx(path)


def test_a_compressed_file_is_not_read_beyond_its_stated_size(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(4, np.uint8)) + bytes(50_000_000)))
    with pytest.raises(InputError, match="4 values are stated, and the file has more"):
        read_idx(path)


def test_mnist_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file train-images-idx3-ubyte or"):
        load_mnist(tmp_path)
    with pytest.raises(InputError, match="part must be train or test, not 'all'"):
        load_mnist(tmp_path, "all")
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx_bytes(np.zeros((2, 2), np.uint8)))
    with pytest.raises(InputError, match="3 and 1 dimensions, not 3 and 2"):
        load_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx_bytes(np.zeros(2, np.uint8)))
    with pytest.raises(InputError, match=r"one length, not \[6, 2\]"):
        load_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx_bytes(np.full(6, 11, np.uint8)))
    with pytest.raises(InputError, match="labels must be 0 to 9, not 11 to 11"):
        load_mnist(tmp_path)
    with pytest.raises(InputError, match="it is a folder"):
        read_idx(tmp_path)


def test_cifar_binary_and_npz_agree(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, 10)
    np.savez(tmp_path / "some.npz", x=images, y=labels)
    planes = images.transpose(0, 3, 1, 2).reshape(10, -1)
    records = np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1)
    for number in range(5):
        (tmp_path / f"data_batch_{number + 1}.bin").write_bytes(
            records[2 * number : 2 * number + 2].tobytes()
        )
    (tmp_path / "test_batch.bin").write_bytes(records[:3].tobytes())
    of_npz, of_folder = load_cifar10(tmp_path / "some.npz"), load_cifar10(tmp_path)
    np.testing.assert_array_equal(of_npz.inputs[0], of_folder.inputs[0])
    np.testing.assert_array_equal(of_npz.labels, of_folder.labels)
    assert len(load_cifar10(tmp_path, "test")) == 3
    assert len(load_cifar10(tmp_path / "data_batch_2.bin")) == 2
    with pytest.raises(InputError, match="part must be train or test"):
        load_cifar10(tmp_path, "dev")


def test_pickles_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match="pickled batches are not read"):
        load_cifar10(path)
    objects = tmp_path / "objects.npz"
    np.savez(objects, x=np.array([{}, 1], object), y=np.zeros(2))
    with pytest.raises(InputError, match=r"not a \.npz file of plain arrays"):
        load_cifar10(objects)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((1, 32, 32, 3), np.uint8)}, "must hold the arrays x and y"),
        ({"x": np.zeros((1, 3, 32, 32), np.uint8), "y": np.zeros(1, int)}, "x must be"),
        ({"x": np.zeros((1, 32, 32, 3)), "y": np.zeros(1, int)}, "uint8, not"),
        ({"x": np.zeros((1, 32, 32, 3), np.uint8), "y": np.zeros(1)}, "y must be"),
    ],
)
def test_hostile_cifar_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "bad.npz", allow_pickle=True, **arrays)
    with pytest.raises(InputError, match=message):
        load_cifar10(tmp_path / "bad.npz")


def test_hostile_cifar_files(tmp_path: Path) -> None:
    path = tmp_path / "batch.bin"
    path.write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(InputError, match="labels must be 0 to 9, not 10"):
        load_cifar10(path)
    (tmp_path / "no.npz").write_bytes(b"zip")
    with pytest.raises(InputError, match=r"not a \.npz file"):
        load_cifar10(tmp_path / "no.npz")


def test_digits() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn holds the data set")
    digits = load_digits()
    assert digits.inputs[0].shape == (1797, 1, 8, 8)
    assert (digits.inputs[0].min(), digits.inputs[0].max()) == (0, 1)


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(LeptonError, match=r"needs sklearn.*pip install 'lepton-npu\[train\]'"):
        load_digits()


def test_image_folder(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow reads pictures")
    for name, value in (("cat", 40), ("dog", 200)):
        (tmp_path / name).mkdir()
        wide = np.zeros((20, 40, 3), np.uint8)
        wide[:, 10:30] = value  # only the centred square
        image.fromarray(wide).save(tmp_path / name / "1.png")
        (tmp_path / name / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    loaded = load_image_folder(tmp_path, 20)
    assert (loaded.inputs[0].shape, loaded.classes) == ((2, 3, 20, 20), ("cat", "dog"))
    assert [set(np.unique(one)) for one in loaded.inputs[0]] == [{40}, {200}]
    assert load_image_folder(tmp_path, 8, is_grey=True).inputs[0].shape == (2, 1, 8, 8)
    (tmp_path / "dog" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError, match="not a picture that can be read"):
        load_image_folder(tmp_path, 8)
    with pytest.raises(InputError, match="not a folder"):
        load_image_folder(tmp_path / "none")
    with pytest.raises(InputError, match="one for each of two classes"):
        load_image_folder(tmp_path / "cat")


def test_hold_out_keeps_classes_in_proportion() -> None:
    labels = np.repeat(np.arange(3), (50, 30, 20))
    whole = Dataset((np.arange(100),), labels, ("a", "b", "c"))
    rest, held = hold_out(whole, 20, seed=1)
    assert np.bincount(held.labels).tolist() == [10, 6, 4]
    both = np.concatenate([rest.inputs[0], held.inputs[0]])
    np.testing.assert_array_equal(np.sort(both), np.arange(100))
    again, other = hold_out(whole, 20, seed=1)[1], hold_out(whole, 20, seed=2)[1]
    np.testing.assert_array_equal(held.inputs[0], again.inputs[0])
    assert not np.array_equal(held.inputs[0], other.inputs[0])
    assert np.bincount(hold_out(whole, 7, seed=0)[1].labels).sum() == 7
    for samples in (0, 100):
        with pytest.raises(InputError, match=f"must be 1 to 99, not {samples}"):
            hold_out(whole, samples, seed=0)
