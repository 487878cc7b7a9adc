"""A linear model of river on our features, behind river's own verbs, `learn_one` and `predict_proba_many`.

What liverank is compared with; the other file that imports river is `stream.monitor.detectors`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd
from river.linear_model import LogisticRegression
from river.optim import Adam
from river.preprocessing import StandardScaler

from models.batch import FEATURES, Array

OTHERS = 3
"""Items without a click that are learned of each list: all of them would take ten times as long."""


class Classifier(Protocol):
    """Any binary classifier of river's."""

    def learn_one(self, x: dict[str, float], y: bool) -> Any:
        """Learn from one."""
        ...

    def predict_proba_many(self, x: pd.DataFrame) -> pd.DataFrame:
        """Chance of False and True, of each row."""
        ...


def logistic_regression() -> Classifier:
    """Standardised features, logistic regression, Adam."""
    model: Classifier = StandardScaler() | LogisticRegression(Adam(0.003))
    return model


class Linear:
    """Predicts clicks on lists with a classifier of river's.

    Since clicked items are over-represented in what it learns, its odds are scaled down by the share w of
    the others that were kept: q = p / (p + (1 - p) / w) (He et al., ADKDD 2014).
    """

    def __init__(self, model: Classifier, rng: np.random.Generator) -> None:
        self._model, self._rng = model, rng
        self._kept = self._others = 1

    def predict(self, features: Array) -> Array:
        """Chance of a click (float64 [N]) of items with these features (float32 [N, F])."""
        frame = pd.DataFrame(features.astype(np.float64), columns=list(FEATURES), copy=False)
        p = np.clip(self._model.predict_proba_many(frame)[True].to_numpy(), 1e-9, 1 - 1e-9)
        scaled: Array = p / (p + (1 - p) * self._others / self._kept)
        return scaled

    def learn(self, features: Array, clicked: Array) -> None:
        """Learn from one list: float32 [n, F], bool [n]."""
        others = np.flatnonzero(~clicked)
        kept = self._rng.permutation(others)[:OTHERS]
        self._kept, self._others = self._kept + len(kept), self._others + len(others)
        chosen = np.sort(np.concatenate([np.flatnonzero(clicked), kept]))
        for x, y in zip(_rows(features[chosen]), clicked[chosen].tolist(), strict=True):
            self._model.learn_one(x, y)


def _rows(features: Array) -> list[dict[str, float]]:
    return [dict(zip(FEATURES, row, strict=True)) for row in features.tolist()]
