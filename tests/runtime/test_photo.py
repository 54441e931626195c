"""Photos as inputs, and the best classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lepton
from lepton.errors import InputError
from lepton.runtime.golden import GoldenModel
from lepton.runtime.photo import read_labels, top_classes
from tests.conftest import data_path


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a smooth random photo."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def naive_resize(image: np.ndarray, height: int, width: int, box: tuple[float, ...]) -> np.ndarray:
    """Return a triangle-filtered resize in plain loops: what an antialiased bilinear one is."""

    def weights(size: int, start: float, stop: float, source: int) -> np.ndarray:
        scale = (stop - start) / size
        reach = max(scale, 1.0)
        made = np.zeros((size, source))
        for at in range(size):
            middle = start + (at + 0.5) * scale
            for pixel in range(source):
                made[at, pixel] = max(0.0, 1 - abs(pixel + 0.5 - middle) / reach)
            made[at] /= made[at].sum()
        return made

    left, top, right, bottom = box
    rows = weights(height, top, bottom, image.shape[0])
    columns = weights(width, left, right, image.shape[1])
    return np.einsum("ab,bcd,ec->aed", rows, image.astype(float), columns)


@pytest.mark.parametrize(("height", "width"), [(90, 120), (200, 64), (30, 30)])
@pytest.mark.parametrize("crop", [0.875, 1.0, None])
def test_the_middle_is_resized(height: int, width: int, crop: float | None) -> None:
    image = photo(height, width)
    made = lepton.preprocess_image(image, (1, 32, 32, 3), "uint8", crop=crop)
    side = min(height, width) * (crop or 1)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side) if crop else (0.0, 0.0, width, height)
    expected = naive_resize(image, 32, 32, box)
    assert made.shape == (1, 32, 32, 3) and made.dtype == np.uint8
    # Pillow rounds after each direction
    assert np.abs(made[0] - expected).max() <= 1.51


def test_layouts_and_types() -> None:
    image = photo(40, 40)
    last = lepton.preprocess_image(image, (1, 24, 24, 3), "uint8")
    first = lepton.preprocess_image(image, (1, 3, 24, 24), "uint8")
    assert np.array_equal(first[0].transpose(1, 2, 0), last[0])
    assert lepton.preprocess_image(image, (24, 24, 3), "uint8").shape == (24, 24, 3)
    signed = lepton.preprocess_image(image, (1, 24, 24, 3), "int8")
    assert np.array_equal(signed.astype(int) + 128, last.astype(int))
    grey = lepton.preprocess_image(image, (1, 24, 24, 1), "uint8")
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert abs(float(grey.mean()) - luma.mean()) < 12
    assert np.array_equal(lepton.preprocess_image(image[..., 0], (1, 24, 24, 1), "uint8")[..., 0],
                          lepton.preprocess_image(image[..., :1].repeat(3, 2), (1, 24, 24, 3),
                                                  "uint8")[..., 0])  # fmt: skip


def test_scales_of_float_inputs() -> None:
    image = photo(24, 24)
    pixels = lepton.preprocess_image(image, (1, 24, 24, 3), "uint8").astype(np.float64)
    wanted = {
        "pixels": pixels,
        "unit": pixels / 255,
        "signed": pixels / 127.5 - 1,
        "imagenet": (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    }
    for scale, expected in wanted.items():
        made = lepton.preprocess_image(image, (1, 24, 24, 3), scale=scale)
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, expected, atol=2e-6)
    by_default = lepton.preprocess_image(image, (1, 3, 24, 24))
    np.testing.assert_allclose(by_default.transpose(0, 2, 3, 1), wanted["imagenet"], atol=2e-6)
    half = lepton.preprocess_image(image, (1, 24, 24, 3), "float16")
    np.testing.assert_allclose(half, pixels / 127.5 - 1, atol=1e-3)


def test_files_are_turned_as_the_camera_says(tmp_path: Path) -> None:
    image = Image.fromarray(photo(20, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    made = lepton.preprocess_image(tmp_path / "turned.png", (1, 32, 20, 3), "uint8", crop=1.0)
    assert np.array_equal(made[0], np.rot90(np.asarray(image), 3))


@pytest.mark.parametrize(
    ("image", "shape", "options", "message"),
    [
        (np.zeros((4, 4, 3)), (1, 4, 4, 3), {}, "an image must be uint8"),
        (np.zeros((4, 4, 2), np.uint8), (1, 4, 4, 3), {}, "must have 3 or 4 colours, not 2"),
        (np.zeros((4, 4, 3), np.uint8), (1, 10), {}, r"input of shape \[1, 10\]; it must be"),
        (np.zeros((4, 4, 3), np.uint8), (2, 4, 4, 3), {}, r"input of shape \[2, 4, 4, 3\]"),
        (np.zeros((4, 4, 3), np.uint8), (1, 4, 4, 3), {"scale": "x"}, "pixels become one of"),
        (np.zeros((4, 4, 3), np.uint8), (1, 4, 4, 3), {"crop": 0.0}, "crop must be above 0"),
        (np.zeros((4, 4, 3), np.uint8), (1, 4, 4, 3), {"dtype": "int32"}, "must be float or 8"),
        (np.zeros((4, 4, 3), np.uint8), (1, 4, 4, 3), {"dtype": "int8", "scale": "unit"},
         "takes the pixels as they are, not 'unit'"),
        ("none.png", (1, 4, 4, 3), {}, "none.png: cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_image(image, shape, options, message: str) -> None:  # pyright: ignore
    with pytest.raises(InputError, match=message):
        lepton.preprocess_image(image, shape, **options)


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InputError, match="is not an image that Pillow reads"):
        lepton.preprocess_image(tmp_path / "x.png", (1, 4, 4, 3))


def test_labels_and_the_best_classes(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\r\ndog\nbird, any\n")
    labels = read_labels(path)
    assert labels == ("cat", "dog", "bird, any")
    scores = np.array([[3, 7, 7]], np.uint8)
    best = top_classes(scores, labels, 2, (0.5, 1))
    assert [(item.number, item.label, item.score) for item in best] == [
        (1, "dog", 3.0),
        (2, "bird, any", 3.0),
    ]
    assert [item.label for item in top_classes(scores, count=9)] == ["", "", ""]
    with pytest.raises(InputError, match="there are 3 labels for 2 classes"):
        top_classes(np.zeros(2), labels)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a text of a label per line"):
        read_labels(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="holds no labels"):
        read_labels(path)


@pytest.mark.parametrize(("name", "label"), [("cat", "Egyptian cat"), ("sunflower", "daisy")])
@pytest.mark.parametrize(
    ("model", "side"), [("mobilenet_v1_0.25_128_quant", 128), ("tf2_mobilenet_v2_1.0_224_ptq", 224)]
)
def test_photos_are_recognized(name: str, label: str, model: str, side: int) -> None:
    labels = read_labels(data_path("photos/imagenet_labels.txt"))
    x = lepton.preprocess_image(data_path(f"photos/{name}.bmp"), (1, side, side, 3), "uint8")
    golden = GoldenModel(data_path(f"mobilenet/{model}.tflite"))
    (scores,) = golden.run({"input": x}).values()
    best = top_classes(scores, labels, quantization=golden.output_quantization())
    assert best[0].label == label
    assert 0.5 < best[0].score <= 1
