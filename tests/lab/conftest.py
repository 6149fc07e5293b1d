import pytest

from lab import models, moments, pairs, runs
from lab.models import Recipe
from lab.moments import Moment
from lab.pairs import Pair
from tests.lab.fakes import TINY_PAIR


@pytest.fixture
def tiny_pair(tmp_path, monkeypatch):
    """A pair of the lab whose models have two steps behind them; the cache is empty."""
    for module in (models, moments, runs):
        monkeypatch.setattr(module, "CACHE", tmp_path)
    monkeypatch.setattr(models, "EXAMPLES", 16)
    recipe = Recipe("sums", layers=2, width=16, steps=2, batch=4, keep_every=1)
    pair = Pair(Moment(recipe, 1), Moment(recipe, 2))
    monkeypatch.setitem(pairs.PAIRS, TINY_PAIR, pair)
    return pair
