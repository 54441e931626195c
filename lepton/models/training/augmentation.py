"""Change training images at random: by PyTorch's own random state, which the trainer seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton.models.training.options import TrainingOptions

# torch is typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

if TYPE_CHECKING:
    import torch

__all__ = ["augment", "flipped", "shifted"]


def augment(inputs: tuple[torch.Tensor, ...], options: TrainingOptions) -> tuple[torch.Tensor, ...]:
    """Return the inputs of a batch, the first of them changed as the options say."""
    image = inputs[0]
    if options.shift:
        image = shifted(image, options.shift, repeat_edges=options.repeat_edges)
    if options.flip:
        image = flipped(image)
    return (image, *inputs[1:])


def shifted(
    image: torch.Tensor,
    pixels: int,
    generator: torch.Generator | None = None,
    *,
    repeat_edges: bool = False,
) -> torch.Tensor:
    """Move each image [n, c, h, w] by up to some pixels on both axes.

    What moves in is zeros, or repeats the image's edge.
    """
    import torch

    count, _, height, width = image.shape
    padded = torch.nn.functional.pad(
        image, [pixels] * 4, mode="replicate" if repeat_edges else "constant"
    )
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    offsets = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator)
    return windows[torch.arange(count), :, offsets[0], offsets[1]]


def flipped(image: torch.Tensor) -> torch.Tensor:
    """Mirror half of the images [n, c, h, w] left to right."""
    import torch

    is_mirrored = torch.rand(len(image)) < 0.5
    return torch.where(is_mirrored[:, None, None, None], image.flip(3), image)
