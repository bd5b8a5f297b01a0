"""Classes that a configuration names: which may be used, and what is said of those that may not."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from cpanet import options, targets
from cpanet.config.equivalence import fingerprint
from cpanet.config.resume import differences
from cpanet.config.schema import Config
from cpanet.errors import UserError
from tests.hydra_app import compose


def test_a_record_does_not_choose_what_is_imported() -> None:
    config = {"backbone": {"_target_": "somebody.elses.Network", "name": "theirs"}}
    with pytest.raises(UserError, match=r"checkpoint=x names the class somebody\.elses\.Network"):
        targets.check_recorded(config, "checkpoint=x")


def test_classes_of_this_project_need_no_permission() -> None:
    targets.check_recorded({"backbone": {"_target_": "cpanet.models.backbones.VGG16"}}, "checkpoint=x")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"_target_": "cpanet.errors.Missing"}, "there is no such class"),
        ({"_target_": "cpanet.errors.UserError"}, "must be a class that derives from builtins.dict"),
    ],
)
def test_a_class_that_does_not_fit_is_named(section: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        targets.make(section, dict, "backbone")


def test_arguments_that_the_class_lacks_are_named() -> None:
    from cpanet.models import backbone_of

    section = {"_target_": "cpanet.models.backbones.ResNet", "depth": 50, "dept": 101, "name": "x", "lr": 0.1}
    with pytest.raises(UserError, match="dept"):
        backbone_of(section)


def test_what_a_section_says_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    for text in ("${oc.env:SECRET}", "???", "a${b"):
        made = targets.call("cpanet.recipe.Poly", {"name": text})
        assert made.name == text


def test_an_old_record_is_the_same_function() -> None:
    new = {
        "_target_": "cpanet.models.backbones.ResNet",
        "depth": 50,
        "deep_stem": True,
        "batch_norm": True,
        "name": "resnet50_deep",
    }
    assert fingerprint({"backbone": {"name": "resnet50_deep"}}) == fingerprint({"backbone": new})
    assert fingerprint({"backbone": {"name": "resnet50"}}) != fingerprint({"backbone": new})


@pytest.mark.parametrize(
    ("recipe", "unread"),
    [("paper", {}), ("fast", {"power": 1.0}), ("steel", {"power": 1.0})],
)
def test_an_old_record_of_a_recipe_is_the_same_function(recipe: str, unread: dict[str, float]) -> None:
    new = compose(f"recipe={recipe}", "data=embedded").model_dump()
    old = copy.deepcopy(new)
    del old["data"]["_target_"]
    for kind in ("optimizer", "schedule", "loss", "episodes"):
        del old["recipe"][kind]["_target_"]
    if recipe == "paper":  # from before episodes were a choice
        del old["recipe"]["episodes"]
    old["recipe"]["schedule"].update(unread)
    assert fingerprint(old) == fingerprint(new)
    assert Config.model_validate(options.current(old)) == Config.model_validate(new)
    assert differences(old, new) == []
    old["recipe"]["optimizer"]["lr"] *= 2
    assert fingerprint(old) != fingerprint(new)


def test_backbones_of_others_are_told_apart() -> None:
    first = {
        "backbone": {"_target_": "a.Network", "name": "mine", "width": 8},
        "protocol": {"backbone_mode": "train"},
    }
    second = {**first, "protocol": {"backbone_mode": "eval"}}
    assert fingerprint(first) != fingerprint(second)  # it may have BatchNorm


@pytest.mark.parametrize(
    ("typed", "said"), [("50", "depth = '50'"), (True, "depth = True"), (49, "depth = 49: must be one of")]
)
def test_an_argument_of_a_wrong_type_or_value_is_refused(typed: object, said: str) -> None:
    from cpanet.models import backbone_of

    with pytest.raises(UserError, match=said):
        backbone_of({"_target_": "cpanet.models.backbones.ResNet", "depth": typed, "deep_stem": False})


def test_an_old_record_of_modules_is_the_same_function() -> None:
    for name in options.names("ablation"):
        on = ("cpp", "sa", "ssa") if name == "full" else tuple(name.split("_"))
        old = {"name": name, **{module: module in on for module in ("cpp", "sa", "ssa")}}
        assert options.current({"ablation": old})["ablation"] == options.read("ablation", name)


def test_a_row_that_is_not_published_keeps_its_name() -> None:
    mine = {**options.read("ablation", "full"), "name": "mine", "label": "my row"}
    assert options.named_for_its_parts(mine) == mine
    other = {**options.read("ablation", "full"), "decoder": {"_target_": "a.Decoder"}}
    assert options.named_for_its_parts(other)["name"] == "CrossPositionProxy+Decoder+SupportAuxiliary"


def test_a_backbone_without_an_address_is_told_of() -> None:
    from cpanet.models.pretrained import find_weights, instructions

    path, sentence = find_weights("mine", None, "auto", Path("nowhere"))
    assert (path, sentence) == (None, "no ImageNet weights are known for mine")
    assert "put mine.safetensors into nowhere" in instructions("mine", None, Path("nowhere"))


def test_a_recipe_a_protocol_and_a_profile_of_ones_own_have_any_name() -> None:
    values = compose("data=embedded").model_dump()
    values["recipe"]["name"] = values["protocol"]["name"] = values["profile"] = "mine"
    assert Config.model_validate(values).recipe.name == "mine"


def test_the_formulas_can_be_asked_for() -> None:
    from cpanet.models import backbone_of, network_of

    for fused in (True, False):
        config = compose(
            "data=embedded", "backbone=vgg16", "model.width=16", f"model.fused={fused}"
        ).model_dump()
        assert network_of(config, backbone_of(config["backbone"])).fused is fused
