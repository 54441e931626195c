"""Data sets as arrays: files of known formats, the user's own, and generated ones.

Each loader returns a `Dataset`; `hold_out` splits one by a seed. `python -m
lepton.models.datasets.download` fetches the files of the well-known ones and compares their
checksums.
"""

from lepton.models.datasets.cifar import load_cifar10
from lepton.models.datasets.dataset import Dataset, hold_out
from lepton.models.datasets.digits import load_digits
from lepton.models.datasets.idx import load_mnist, read_idx
from lepton.models.datasets.intents import encode_sentence, generate_intents
from lepton.models.datasets.interactions import generate_clicks, generate_histories
from lepton.models.datasets.photos import load_image_folder

__all__ = ["Dataset", "encode_sentence", "generate_clicks", "generate_histories"]
__all__ += ["generate_intents", "hold_out", "load_cifar10", "load_digits", "load_image_folder"]
__all__ += ["load_mnist", "read_idx"]
