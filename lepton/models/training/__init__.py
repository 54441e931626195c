"""Training networks, measuring them, and the recipes of the networks that ship."""

from lepton.models.training.metrics import Scores, confusion_matrix, scores
from lepton.models.training.options import Schedule, TrainingOptions
from lepton.models.training.trainer import Epoch, Trained, predict, score, train

__all__ = ["Epoch", "Schedule", "Scores", "Trained", "TrainingOptions", "confusion_matrix"]
__all__ += ["predict", "score", "scores", "train"]
