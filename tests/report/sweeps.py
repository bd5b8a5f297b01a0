"""Small synthetic sweeps that several tests share."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from cpanet.report import table_spec
from tests.report.synthetic import ablation, write_failure, write_run

LEVELS = {
    "none": 0.30,
    "cpp": 0.42,
    "sa": 0.49,
    "ssa": 0.53,
    "cpp_sa": 0.494,
    "sa_ssa": 0.536,
    "cpp_ssa": 0.5184,
    "full": 0.54,
}
PUBLISHED = [
    {
        "source": "CPANet-Jittor, VGG-16",
        "conditions": {"data": "embedded", "backbone": "vgg16_bn", "fold": 0, "shot": 1},
        "values": [
            {"match": {"ablation": "cpp"}, "miou": 42.30, "fb_iou": 64.26},
            {"match": {"ablation": "full"}, "miou": 54.04, "fb_iou": 72.43},
        ],
    }
]


def modules(
    top: Path,
    names=tuple(LEVELS),
    seeds=(0, 1),
    pictures: bool = False,
    changes: dict | None = None,
    **parts: Any,
) -> Path:
    """The eight combinations of the modules, or some of them, with their table_spec."""
    top.mkdir(parents=True, exist_ok=True)
    for name, seed in product(names, seeds):
        typed = [f"ablation={name}", f"seed={seed}"]
        set_here = {"ablation": ablation(name), "seed": seed, **(changes or {})}
        write_run(top / ",".join(typed), LEVELS[name], set_here, typed, pictures)
    declared = {
        "name": "modules",
        "title": "Modules of CPANet",
        "axes": {"ablation": list(names)},
        "seeds": list(seeds),
        "rows": ["ablation"],
        "reference": {"ablation": "full", "loss.k": 0.4},
        "published": PUBLISHED,
        **parts,
    }
    (top / table_spec.FILE).write_text(table_spec.dump(table_spec.parse(declared, "test")), encoding="utf-8")
    return top


def multirun(top: Path, *typed: str) -> None:
    """Hydra's record of a multirun's command."""
    top.mkdir(parents=True, exist_ok=True)
    kept = {"hydra": {"overrides": {"task": list(typed), "hydra": ["hydra.mode=MULTIRUN"]}}}
    (top / "multirun.yaml").write_text(yaml.safe_dump(kept))


def ablation_by_k(top: Path) -> Path:
    """An ad-hoc multirun of 3 × 3; CPP and SSA have no auxiliary branch, so that k is nothing to them."""
    multirun(top, "ablation=cpp,sa,ssa", "loss.k=0,0.2,0.4")
    for name, k in product(("cpp", "sa", "ssa"), (0.0, 0.2, 0.4)):
        level = LEVELS[name] + (0.05 * k if name == "sa" else 0)
        typed = [f"ablation={name}", f"loss.k={k}"]
        write_run(top / ",".join(typed), level, {"ablation": ablation(name), "loss.k": k}, typed)
    return top


def folds(top: Path, seeds=(0, 1)) -> Path:
    """Three folds with 1 and 5 shots."""
    multirun(top, "fold=0,1,2", "shot=1,5", "seed=" + ",".join(map(str, seeds)))
    for fold, shot, seed in product((0, 1, 2), (1, 5), seeds):
        changes = {"fold": fold, "shot": shot, "seed": seed}
        typed = [f"{key}={value}" for key, value in changes.items()]
        write_run(top / ",".join(typed), 0.45 + 0.03 * fold + 0.01 * shot, changes, typed)
    return top


def fail(run: Path, changes: dict, reason: str, status: str = "failed") -> None:
    """Put a failure in place of a run."""
    shutil.rmtree(run)
    write_failure(run, changes, reason, status)


def score(run: Path, which: str = "best", metric: str = "miou") -> float:
    """A score of a run, percent."""
    return 100 * json.loads((run / "result.json").read_text())[which][metric]
