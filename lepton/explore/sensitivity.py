"""How much of a metric's variation each parameter explains: fANOVA, from Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.explore.extras import needs
from lepton.explore.space import Space

__all__ = ["sensitivity"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_SEED = 0
_MOST = 2000
"""Points that the forest learns from."""


def sensitivity(
    space: Space, numbers: I64, metrics: Mapping[str, F64], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return of each metric the share of its variation that each parameter explains by itself.

    The variation is that of the logarithm, as a forest of regression trees fitted to the points
    sees it over the whole space. Shares add up to 1: what parameters explain only together is left
    out. A parameter with one value has 0, and so has every one of a metric that does not vary.

    Source: F. Hutter, H. Hoos, K. Leyton-Brown, An Efficient Approach for Assessing Hyperparameter
    Importance, ICML 2014; optuna.importance.FanovaImportanceEvaluator.
    """
    optuna = needs("optuna")
    needs("sklearn")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    varied = [p.path for p in space.parameters if len(p.values) > 1]
    made: dict[str, dict[str, float]] = {}
    for name in names:
        values = metrics[name]
        # any of them: the first alone would have few values of the first parameter
        sound = np.flatnonzero(np.isfinite(values) & (values > 0))
        sound = np.random.default_rng(_SEED).permutation(sound)[:_MOST]
        shares = dict.fromkeys((p.path for p in space.parameters), 0.0)
        own = np.log(values[sound])
        if len(varied) and len(sound) > 3 and np.ptp(own) > 1e-9:
            study = _study(optuna, space, space.points(numbers[sound]), own)
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=_SEED)
            found = optuna.importance.get_param_importances(
                study, evaluator=evaluator, params=varied
            )
            shares |= {path: float(share) for path, share in found.items()}
        made[name] = shares
    return made


def _study(optuna: Any, space: Space, points: I64, values: F64) -> Any:
    """Return a study of finished trials, one per point."""
    varied = [n for n, p in enumerate(space.parameters) if len(p.values) > 1]
    distributions = {
        space.parameters[n].path: optuna.distributions.IntDistribution(0, space.extents[n] - 1)
        for n in varied
    }
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={space.parameters[n].path: point[n] for n in varied},
                distributions=distributions,
                value=value,
            )
            for point, value in zip(points.tolist(), values.tolist(), strict=True)
        ]
    )
    return study
