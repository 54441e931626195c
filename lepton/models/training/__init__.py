"""Training networks, measuring them, and the recipes of the networks that ship."""

from lepton.models.training.metrics import Scores, confusion_matrix, scores
from lepton.models.training.options import Optimizer, Schedule, TrainingOptions
from lepton.models.training.trainer import Epoch, Trained, predict, score, train

__all__ = ["Epoch", "Optimizer", "Schedule", "Scores", "Trained", "TrainingOptions"]
__all__ += ["confusion_matrix", "predict", "score", "scores", "train"]
