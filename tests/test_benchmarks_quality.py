"""The quality benchmark: its arithmetic on made-up runs, and one whole comparison on the real path, in small."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks import measure, quality
from cpanet.errors import UserError


def run(recipe="fast", fold=0, seed=0, miou=(0.0, 0.1, 0.2), status="completed", floor=0.05) -> quality.Run:
    iterations = [10 * i for i in range(len(miou))]
    return quality.Run(
        recipe, fold, seed, status, iterations, list(miou), [0.5 * i for i in iterations], [None] * 3, floor
    )


@pytest.mark.parametrize(
    ("miou", "left"),
    [((0.0, 0.1, 0.2), 10), ((0.1, 0.2, 0.3), 0), ((0.1, 0.0, 0.2), 20), ((0.1, 0.2, 0.0), None)],
)
def test_the_plateau_is_left_for_good_or_not_at_all(miou, left):
    assert run(miou=miou).left_plateau == left


def test_folds_are_averaged_before_seeds_are_compared():
    runs = [run(fold=f, seed=s, miou=(0, 0, 0.1 + f + 0.01 * s)) for f in (0, 1) for s in (0, 1)]
    assert quality.by_seed(runs, lambda r: r.miou[-1]) == pytest.approx([0.6, 0.61])


def test_the_interval_of_two_seeds_is_students():
    mean = quality.mean([0.1, 0.3])
    assert mean["value"] == pytest.approx(0.2)
    assert mean["half"] == pytest.approx(12.706 * 0.1, rel=1e-3)
    assert quality.mean([0.1])["half"] is None


def test_how_soon_a_recipe_is_where_the_first_one_ends():
    runs = [run("paper", miou=(0, 0.0, 0.1), seed=s) for s in (0, 1)]
    runs += [run("fast", miou=(0.2, 0.12, 0.3), seed=s) for s in (0, 1)]
    found = quality.summarise(runs, ["paper", "fast"])
    assert found["fast"]["reaches_first_recipe"] == 10
    assert found["paper"]["left_plateau"] == 20
    assert found["fast"]["over_floor"]["value"] == pytest.approx(0.25)
    assert found["fast"]["over_floor_by_fold"]["0"]["value"] == pytest.approx(0.25)


def test_diverged_runs_are_counted_and_leave_the_means_alone():
    runs = [run("fast"), run("fast", seed=1, status="diverged", miou=(0.0,))]
    found = quality.summarise(runs, ["fast"])["fast"]
    assert (found["runs"], found["diverged"]) == (2, 1)
    assert found["last"]["value"] == pytest.approx(0.2)
    nothing = quality.summarise([run("fast", status="diverged")], ["fast"])
    assert "| fast | 1 |" in quality.table({"recipes": nothing})


def test_a_recipe_is_a_name_or_overrides():
    assert quality.parse_recipe("fast") == ("fast", ["recipe=fast"])
    assert quality.parse_recipe("bare=recipe=fast recipe.dropout=true") == (
        "bare",
        ["recipe=fast", "recipe.dropout=true"],
    )


def test_records_name_no_folder():
    assert measure.without_path("data.root=/some/where/metal8") == "data.root=metal8"
    assert measure.without_path("recipe/loss=dice") == "recipe/loss=dice"


def test_a_small_comparison_leaves_record_table_and_figure(tmp_path):
    command = [sys.executable, "-m", "benchmarks.quality", "--out", str(tmp_path), "--seeds", "0"]
    command += ["--iterations", "2", "--evaluations", "2", "--recipe", "fast", "--threads", "1"]
    command += ["profile=tiny", "backbone=vgg16", "device=cpu", "data.workers=0"]
    done = subprocess.run(command, cwd=measure.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "quality-embedded.json").read_text())
    (only,) = record["runs"]
    assert only["status"] == "completed"
    assert only["iterations"] == [0, 1, 2]
    assert only["seconds"][0] == 0 < only["seconds"][1] < only["seconds"][2]
    assert record["recipes"]["fast"]["last"]["value"] == only["miou"][-1]
    assert "| fast | 1 |" in (tmp_path / "quality-embedded.md").read_text()
    assert (tmp_path / "quality-embedded.svg").stat().st_size > 0


def test_records_can_be_put_together_unless_they_differ(tmp_path):
    for seed in (0, 1):
        record = quality.assemble([run(seed=seed)], {"fast": ["recipe=fast"]}, ["data=embedded"], 20)
        (tmp_path / f"{seed}.json").write_text(json.dumps(record))
    files = [str(tmp_path / f"{seed}.json") for seed in (0, 1)]
    joined = quality.join(files)
    assert joined["recipes"]["fast"]["runs"] == 2
    assert joined["recipes"]["fast"]["last"]["half"] == pytest.approx(0.0)
    (tmp_path / "1.json").write_text(json.dumps({**record, "iterations": 40}))
    with pytest.raises(UserError, match="another budget"):
        quality.join(files)
