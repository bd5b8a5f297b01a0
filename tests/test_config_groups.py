"""Every group option composes and passes validation; the documented commands mean what they say."""

from __future__ import annotations

import pytest

from tests.hydra_app import CONF, compose, options

GROUPS = {
    "backbone": "vgg16 vgg16_bn resnet50 resnet101 resnet152 resnet50_deep resnet101_deep resnet152_deep",
    "ablation": "none cpp sa ssa cpp_sa cpp_ssa sa_ssa full",
    "loss_k": "0.0 0.2 0.4 0.6 0.8 1.0",
    "fold": "0 1 2 3",
    "shot": "1 5",
    "data": "auto fssd12 embedded metal8 folder",
    "protocol": "corrected released",
    "profile": "paper quick tiny auto",
    "recipe": "paper fast",
    "recipe/optimizer": "sgd adamw",
    "recipe/schedule": "poly cosine",
    "device": "auto cpu cuda",
    "task": "train",
}
EVERY_OPTION = [(group, option) for group, names in GROUPS.items() for option in names.split()]


def test_the_groups_are_those_promised() -> None:
    on_disk = {
        str(path.relative_to(CONF))
        for path in CONF.rglob("*")
        if path.is_dir() and any(path.glob("*.yaml")) and "hydra" not in path.parts
    }
    assert on_disk == set(GROUPS)
    for group, names in GROUPS.items():
        assert options(group) == set(names.split())


@pytest.mark.parametrize(("group", "option"), EVERY_OPTION)
def test_every_option_composes_and_validates(group: str, option: str) -> None:
    extra = ["data=metal8"] if (group, option) == ("fold", "3") else []
    extra += ["data.root=somewhere"] if (group, option) == ("data", "folder") else []
    config = compose(f"{group}={option}", *extra)
    for words in ("backbone", "ablation", "protocol", "data", "recipe"):
        if group == words and option != "auto":
            assert getattr(config, words).name == option
