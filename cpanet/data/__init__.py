"""Data: files → episodes → batches. Nothing here imports Jittor."""

from cpanet.data.catalog import examine, load_dataset, resolve_auto
from cpanet.data.dataset import DefectDataset, Split
from cpanet.data.episodes import Episode, test_episodes, train_episodes
from cpanet.data.loader import Batch, EpisodeLoader, make_batch, test_batch, train_batches

__all__ = [
    "Batch",
    "DefectDataset",
    "Episode",
    "EpisodeLoader",
    "Split",
    "examine",
    "load_dataset",
    "make_batch",
    "resolve_auto",
    "test_batch",
    "test_episodes",
    "train_batches",
    "train_episodes",
]
