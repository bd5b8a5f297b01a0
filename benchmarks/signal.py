"""Where a head stands before it is trained: sizes of signals and gradients, and what the prototype has to say.

python -m benchmarks.signal                                          on the embedded set
python -m benchmarks.signal data=metal8 data.root=DIR backbone=vgg16 backbone.weights=FILE data.image_size=96

For each start, on the same test episodes and without an update: RMS of the features before and after normalisation, of the
query's and the prototype's channels; mean and spread over positions of the logit; what happens to the logit when every
episode gets another episode's prototype, as a share of that spread; and each layer's gradient over its weights.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import measure, report
from benchmarks.configured import composed, episodes_and_network
from benchmarks.workload import run_parser
from cpanet import config, data, runtime

BASE = ("profile=quick", "data=embedded", "backbone.weights=random")
STARTS = {
    "paper": ["recipe=paper"],
    "paper, no dropout": ["recipe=paper", "recipe.dropout=false"],
    "paper, masked mean for CPP": ["recipe=paper", "ablation=sa_ssa"],
    "paper, Kaiming-normal": ["recipe=paper", "recipe.init.head=kaiming_normal"],
    "paper, features over their RMS": ["recipe=paper", "recipe.features=position"],
    "prototype": ["recipe=paper", "recipe.features=position", "recipe.init.head=prototype"],
    "prototype, weighted loss": [
        "recipe=fast",
        "recipe.features=position",
        "recipe.init.head=prototype",
        "recipe/loss=weighted",
    ],
}
LAYERS = ["down_query", "down_supp", "compare1", "compare2", "refine1", "refine2"]
LAYERS += ["ssa.fuse", "ssa.mix", "ssa.residual", "ssa.classify"]


def rms(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(x.numpy(), dtype=np.float64))))


def look(settings: config.Config, episodes: int) -> dict[str, Any]:
    """The sizes named above, for one configuration, over ``episodes`` test episodes spread over the classes."""
    from cpanet.models.feature_norm import normalise_features
    from cpanet.runtime import jt

    def spread_over(drawn: list[data.Episode]) -> list[data.Episode]:
        return [drawn[i * len(drawn) // episodes] for i in range(min(episodes, len(drawn)))]

    batch, model = episodes_and_network(settings, spread_over)
    model.train()
    size = (settings.data.image_size, settings.data.image_size)
    query, support = model.episode_features(jt.array(batch.query), jt.array(batch.support))
    masks = jt.array(batch.support_mask)
    model.dropout_source.reseed(0, 0)
    _, prototype = model.encode_supports(support, masks)
    logits = model.decode(query, prototype, size)
    loss = settings.recipe.loss(logits, jt.array(batch.query_mask))
    parameters = {name: p for name, p in model.named_parameters() if not p.is_stop_grad()}
    gradients = dict(zip(parameters, jt.grad(loss, list(parameters.values()))))
    ratios = {
        layer: rms(gradients[weight]) / max(rms(parameters[weight]), 1e-30)
        for layer in LAYERS
        if (weight := f"{layer}.weight") in parameters
    }
    model.eval()
    difference = _difference(model, query, prototype, size)
    half = len(batch.query) // 2  # half a round on: another class where there are two
    order = np.roll(np.arange(len(batch.query)), half)
    swapped = _difference(model, query, prototype[jt.array(order)], size)
    spread = float(difference.std(axis=(1, 2)).mean())
    return {
        "features": rms(query),
        "behind_the_door": rms(normalise_features(query, settings.recipe.features)),
        "prototype": rms(prototype),
        "loss": float(loss.item()),
        "logit_mean": float(difference.mean()),
        "logit_spread": spread,
        "prototype_share": float(np.sqrt(np.mean((swapped - difference) ** 2))) / max(spread, 1e-30),
        "gradient_over_weight": ratios,
    }


def _difference(model: Any, query: Any, prototype: Any, size: tuple[int, int]) -> np.ndarray:
    from cpanet.runtime import jt

    with jt.no_grad():
        logits = model.decode(query, prototype, size).numpy()
    return np.asarray(logits[:, 1] - logits[:, 0])


def table(starts: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row a start; of the gradients the first and the last layer's and the smallest."""
    headings = ("start", "features → head", "prototype", "logit, mean ± spread", "share of another prototype")
    ratios = ("gradient ÷ weight: down_query", "compare1", "refine2", "classifier")
    rows = [
        [
            name,
            f"{found['features']:.2f} → {found['behind_the_door']:.2f}",
            f"{found['prototype']:.2g}",
            f"{found['logit_mean']:.2g} ± {found['logit_spread']:.1g}",
            f"{found['prototype_share']:.2g}",
            *(
                f"{found['gradient_over_weight'][layer]:.1e}"
                for layer in ("down_query", "compare1", "refine2", "ssa.classify")
            ),
        ]
        for name, found in starts.items()
    ]
    return report.markdown((*headings, *ratios), rows)


def arguments() -> argparse.Namespace:
    options = run_parser("signal", __doc__, f"for run.py, after {' '.join(BASE)}")
    options.add_argument("--episodes", type=int, default=8)
    options.add_argument("--name", default="embedded", help="of the file: signal-NAME.json")
    return options.parse_args()


def measured(_: None, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record."""
    starts: dict[str, dict[str, Any]] = {}
    for name, overrides in STARTS.items():
        settings = composed([*BASE, *options.overrides, *overrides])
        runtime.prepare(settings.device)
        starts[name] = look(settings, options.episodes)
    overrides = [measure.without_path(override) for override in options.overrides]
    return {**measure.header("signal", "cpu"), "overrides": overrides, "starts": starts}


if __name__ == "__main__":
    asked = arguments()
    sys.exit(
        report.run(f"signal-{asked.name}", asked, measured, lambda record, _: print(table(record["starts"])))
    )
