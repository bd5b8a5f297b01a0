"""Records of run directories: what is read, and that nothing that lies there stops the reading."""

from __future__ import annotations

import json
import math
import random

import pytest
import yaml

from cpanet.report.runs import collect
from cpanet.report.values import at
from tests.report.synthetic import CLASSES, ablation, write_failure, write_run


def one(tmp_path):
    runs = collect([tmp_path])
    assert len(runs) == 1
    return runs[0]


def edited(path, **changes):
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **changes}))


def test_a_completed_run(tmp_path):
    write_run(tmp_path / "seed=1", 0.5, {"seed": 1}, ["seed=1"])
    run = one(tmp_path)
    assert (run.name, run.status, run.seed, run.overrides) == ("seed=1", "completed", 1, ("seed=1",))
    assert run.scores["best"].epoch == 16
    assert run.scores["last"].miou == pytest.approx(0.5, abs=0.15)
    assert set(run.scores["last"].class_iou) == set(CLASSES)
    assert run.episodes["best"].counts.shape == (48, 4)
    assert math.isnan(run.metrics["loss_main"].iloc[0])
    assert run.metrics["epoch"].iloc[-1] == 20
    assert at(run.result, "versions", "jittor") == "1.3.11.0"
    assert at(run.result, "versions", "jittor", "more") is None


DAMAGE = {
    "truncated record": ("result.json", lambda text: text[: len(text) // 2]),
    "no record": ("result.json", lambda text: "[1, 2]"),
    "empty record": ("result.json", lambda text: ""),
    "deep record": ("result.json", lambda text: "[" * 100_000),
    "scores of another kind": ("result.json", lambda text: text.replace('"miou"', '"mIoU"')),
    "scores outside 0–1": ("result.json", lambda text: text.replace('"miou": 0.', '"miou": 7.')),
    "scores that are no numbers": (
        "result.json",
        lambda text: text.replace('"miou": 0.', '"miou": NaN, "x": 0.'),
    ),
    "completed without scores": ("result.json", lambda text: text.replace('"best"', '"worst"')),
    "status unheard of": ("result.json", lambda text: text.replace("completed", "gone fishing")),
    "truncated episodes": ("episodes.csv", lambda text: text[: len(text) // 2]),
    "episodes without columns": ("episodes.csv", lambda text: text.replace("inter_fg", "inter")),
    "episodes with other numbers": ("episodes.csv", lambda text: text.replace(",1", ",2")),
    "truncated metrics": ("metrics.csv", lambda text: text[:-30]),
    "metrics with words": ("metrics.csv", lambda text: text.replace("0.001", "fast")),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_a_failed_run_with_a_reason(tmp_path, name, damage):
    run = write_run(tmp_path / "run", 0.5)
    (run / name).write_text(damage((run / name).read_text()))
    found = one(tmp_path)
    assert found.failed
    assert name in found.reason or found.reason == "gone fishing"


def test_a_name_may_hold_what_unicode_calls_a_line_separator(tmp_path):
    run = write_run(tmp_path / "run", 0.5)
    text = (run / "episodes.csv").read_text()
    first = text.splitlines()[1].split(",")[2]
    (run / "episodes.csv").write_text(text.replace(first, f"{first}\u2028x"), encoding="utf-8")
    assert one(tmp_path).completed


def test_random_damage_never_stops_the_reading(tmp_path):
    chance = random.Random(0)
    run = write_run(tmp_path / "run", 0.5)
    names = ["result.json", "episodes.csv", "metrics.csv", ".hydra/overrides.yaml", ".hydra/config.yaml"]
    for _ in range(60):
        path = run / chance.choice(names)
        content = path.read_bytes()
        broken = bytearray(content)
        for _ in range(chance.randint(1, 20)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        path.write_bytes(bytes(broken[: chance.randint(0, len(broken))]))
        assert collect([tmp_path])[0].status in ("completed", "failed", "unfinished")
        path.write_bytes(content)
    assert one(tmp_path).completed


def test_a_run_that_has_not_ended_is_unfinished(tmp_path):
    (write_run(tmp_path / "run", 0.5) / "result.json").unlink()
    run = one(tmp_path)
    assert run.status == "unfinished"
    assert run.config["ablation"]["name"] == "full"


def test_missing_episodes_leave_the_scores(tmp_path):
    (write_run(tmp_path / "run", 0.5) / "episodes.csv").unlink()
    run = one(tmp_path)
    assert run.completed
    assert "no interval" in run.notes[0]


def test_a_failed_run_gives_its_reason(tmp_path):
    write_failure(tmp_path / "run", {}, "out of\n memory")
    assert one(tmp_path).reason == "out of memory"


def test_configuration_files_do_not_reach_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hidden")
    hydra = tmp_path / "run" / ".hydra"
    hydra.mkdir(parents=True)
    config = {"a": "${oc.env:SECRET}", "b": "${c.d}", "c": {"d": 3, "e": "${c.e}"}, "seed": 1}
    (hydra / "config.yaml").write_text(yaml.safe_dump(config))
    assert one(tmp_path).config == {"a": "${oc.env:SECRET}", "b": 3, "c": {"d": 3, "e": "${c.e}"}, "seed": 1}


def test_directories_in_groups_are_found_and_checkpoints_are_not_searched(tmp_path):
    write_run(tmp_path / "recipe" / "optimizer=sgd", 0.5)
    write_run(tmp_path / "seed=10", 0.5)
    write_run(tmp_path / "seed=9", 0.5)
    (tmp_path / "seed=9" / "checkpoints" / ".hydra").mkdir(parents=True)
    assert [run.name for run in collect([tmp_path])] == ["recipe/optimizer=sgd", "seed=9", "seed=10"]


class TestDuplicates:
    def pair(self, tmp_path, target="../first", k=0.0):
        write_run(tmp_path / "sweep" / "first", 0.5, {"ablation": ablation("cpp_ssa")})
        second = write_run(tmp_path / "sweep" / "second", 0.3, {"loss.k": k})
        edited(second / "result.json", status="duplicate", duplicate_of=target, best=None, last=None)
        return collect([tmp_path / "sweep"])

    def test_shows_the_numbers_of_the_run_that_computes_the_same(self, tmp_path):
        first, second = self.pair(tmp_path)
        assert second.completed
        assert second.scores == first.scores
        assert second.duplicate_of == first.directory
        assert second.config["ablation"]["name"] == "full"

    def test_of_a_run_that_has_not_begun_is_unfinished(self, tmp_path):
        assert self.pair(tmp_path, "../third")[1].status == "unfinished"

    @pytest.mark.parametrize("target", ["../../elsewhere", "/etc", "../second", ""])
    def test_of_anything_else_fails(self, tmp_path, target):
        assert self.pair(tmp_path, target)[1].status == "failed"

    def test_of_another_function_fails(self, tmp_path):
        assert "does not compute the same" in self.pair(tmp_path, k=0.2)[1].reason
