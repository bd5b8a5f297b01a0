"""Does it learn? A narrow CPANet overfits two episodes in twenty steps.

Two, with the defect in different places, because one alone can be learnt by position, without the image.
"""

from __future__ import annotations

import numpy as np

from cpanet.doctor.checks import CheckFailed, Seen

SIZE, WIDTH, STEPS, RATE, SEED = 64, 32, 20, 1e-3, 1
MIN_IOU, MAX_LOSS_RATIO = 0.6, 0.5  # on a sound machine: 0.86 and 0.09


def episodes() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two episodes, a striped disc on noise: query (2, 3, S, S), mask (2, S, S), 1-shot supports alike."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]

    def one(centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mask = ((rows - centre[1]) ** 2 + (columns - centre[0]) ** 2 < (0.3 * SIZE) ** 2).astype(np.uint8)
        stripes = mask * np.sign(np.sin(columns)) * np.array([2.0, -2.0, 1.0])[:, None, None]
        return (rng.normal(0, 0.3, (3, SIZE, SIZE)) + stripes).astype(np.float32), mask

    made = [one(centre) for centre in SIZE * np.array([(0.3, 0.35), (0.7, 0.6), (0.6, 0.3), (0.35, 0.7)])]
    images, masks = (np.stack(part) for part in zip(*made))
    return images[:2], masks[:2], images[2:, None], masks[2:, None]


def overfit() -> Seen:
    from cpanet.models import published_network
    from cpanet.models.init import initialise
    from cpanet.runtime import jt

    model = published_network("vgg16_bn", width=WIDTH, dropout=False)
    initialise(model, SEED, "kaiming_normal")
    model.train()
    images, truth, *support = episodes()
    query, query_mask, support_images, support_mask = (jt.array(a) for a in (images, truth, *support))
    optimizer = jt.nn.AdamW([p for p in model.parameters() if not p.is_stop_grad()], lr=RATE)
    losses = []
    for step in range(STEPS):
        main, auxiliary = model.losses(query, query_mask, support_images, support_mask)
        optimizer.step(main + 0.4 * auxiliary)
        losses.append(float(main.item()))
        if not np.isfinite(losses[-1]):
            raise CheckFailed(f"the loss is not finite at step {step + 1}")
    check_statistics(model.cpp.norm.running_mean.numpy(), model.cpp.norm.running_var.numpy())
    # In training mode: after twenty steps BatchNorm's running statistics are still on their way.
    predicted = model(query, support_images, support_mask).numpy().argmax(1)
    return verdict(losses, predicted, truth)


def check_statistics(mean: np.ndarray, variance: np.ndarray) -> None:
    """CheckFailed where the running statistics of a BatchNorm, (C,) each, still are as they started, 0 and 1, or are
    no numbers: the run would look right and its evaluation be wrong."""
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        raise CheckFailed("BatchNorm's running statistics are not finite after training")
    if not mean.any() or (variance == 1).all():
        raise CheckFailed("BatchNorm's running statistics are not updated by training")


def verdict(losses: list[float], predicted: np.ndarray, truth: np.ndarray) -> Seen:
    """One line on what was learnt; CheckFailed where it is too little. Masks (B, H, W) of 0 and 1."""
    fall = f"loss {losses[0]:.2f} → {losses[-1]:.2f}"
    if len(losses) > 2 and np.ptp(losses) <= 1e-5 * abs(losses[0]):
        raise CheckFailed(f"nothing learnt: the loss is {losses[0]:.4f} at every step")
    if np.ptp(predicted) == 0:
        raise CheckFailed(f"nothing learnt: every pixel is predicted {predicted.flat[0]} ({fall})")
    iou = float((predicted & truth).sum() / (predicted | truth).sum())
    if losses[-1] > MAX_LOSS_RATIO * losses[0] or iou < MIN_IOU:
        raise CheckFailed(f"too little learnt: {fall}, IoU {iou:.2f} (at least {MIN_IOU} expected)")
    return Seen(f"{fall}, IoU {iou:.2f}")
