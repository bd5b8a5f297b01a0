"""Data: files → episodes → batches. Nothing here imports Jittor."""

from cpanet.data.catalog import Layout, equal_runs, load_dataset, resolve_auto
from cpanet.data.dataset import DefectDataset
from cpanet.data.episodes import Episode, test_episodes, train_episodes
from cpanet.data.images import read_image, value_range_of
from cpanet.data.loader import Batch, EpisodeLoader, test_batch
from cpanet.data.pseudo import EpisodeChanges
from cpanet.data.sets import DataSet, EmbeddedSet, Folder, FSSD12Set, Metal8Set

__all__ = [
    "Batch",
    "DataSet",
    "DefectDataset",
    "EmbeddedSet",
    "Episode",
    "EpisodeChanges",
    "EpisodeLoader",
    "FSSD12Set",
    "Folder",
    "Layout",
    "Metal8Set",
    "equal_runs",
    "load_dataset",
    "read_image",
    "resolve_auto",
    "test_batch",
    "test_episodes",
    "train_episodes",
    "value_range_of",
]
