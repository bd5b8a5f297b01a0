from __future__ import annotations

import pytest

from cpanet.config.equivalence import fingerprint
from tests.report.synthetic import ablation, resolved

SAME = {
    "k = 0 is SA off": ({"ablation": ablation("full"), "loss.k": 0.0}, {"ablation": ablation("cpp_ssa")}),
    "k without SA": (
        {"ablation": ablation("cpp"), "loss.k": 0.2},
        {"ablation": ablation("cpp"), "loss.k": 1},
    ),
    "0 is 0.0": ({"loss.k": 0}, {"loss.k": 0.0}),
    "one shot is the last shot": ({"protocol.aux_loss": "last"}, {"protocol.aux_loss": "mean"}),
    "as many shots as episodes a batch": (
        {"shot": 2, "evaluate.batch_size": 2, "protocol.prototype_average": "batch"},
        {"shot": 2, "evaluate.batch_size": 2, "protocol.prototype_average": "shots"},
    ),
    "no BatchNorm in VGG-16": (
        {"backbone.batch_norm": False, "protocol.backbone_mode": "train"},
        {"backbone.batch_norm": False, "protocol.backbone_mode": "eval"},
    ),
    "padding of an auxiliary loss that is not there": (
        {"ablation": ablation("ssa"), "protocol.aux_padding": "background"},
        {"ablation": ablation("ssa")},
    ),
    "names": ({"profile": "quick", "recipe.name": "paper", "data.label": "FSSD-12"}, {}),
    "workers, logs, checkpoints": (
        {"data.workers": 7, "log.overlays": 0, "checkpoint.every_minutes": 1.0},
        {},
    ),
}
DIFFERENT = {
    "seed": {"seed": 1},
    "k with SA": {"loss.k": 0.2},
    "k = 0": {"loss.k": 0.0},
    "CPP": {"ablation": ablation("sa_ssa")},
    "SSA": {"ablation": ablation("cpp_sa")},
    "average over the batch": {"protocol.prototype_average": "batch"},
    "statistics that drift": {"protocol.backbone_mode": "train"},
    "last of several shots": {"shot": 5, "protocol.aux_loss": "last"},
    "padding": {"protocol.aux_padding": "background"},
    "epochs": {"train.epochs": 2},
    "evaluated epochs": {"evaluate.every": 2},
    "test episodes": {"evaluate.episode_seed": 3},
    "device": {"device": "cuda"},
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_the_same_function_has_one_fingerprint(pair):
    first, second = pair
    assert fingerprint(resolved(**first)) == fingerprint(resolved(**second))


@pytest.mark.parametrize("changes", DIFFERENT.values(), ids=DIFFERENT)
def test_what_changes_the_numbers_changes_the_fingerprint(changes):
    default = {"shot": 5} if "shot" in changes else {}
    assert fingerprint(resolved(**changes)) != fingerprint(resolved(**default))


def test_without_the_seed_all_seeds_are_one():
    assert fingerprint(resolved(seed=1), seed=False) == fingerprint(resolved(seed=2), seed=False)


def test_the_training_free_method_is_one_function_whatever_would_be_trained():
    trained = resolved()
    training_free = {**trained, "method": "prototype"}
    other = {**training_free, "loss": {"k": 0.8}, "train": {"epochs": 3}}
    assert fingerprint(training_free) == fingerprint(other)
    assert fingerprint(training_free) != fingerprint(trained)
