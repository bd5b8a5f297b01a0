"""The reference's half of every measurement: eager PyTorch. Imported in its own process only."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from benchmarks.oracle import recipe_state
from benchmarks.reference import ReferenceCPANet, optimizer, without_dropout
from benchmarks.workload import LEARNING_RATE, Workload
from cpanet.data import DefectDataset, Episode, test_batch
from cpanet.metrics import Counts, episode_counts
from cpanet.runtime.precision import bfloat16_on_cpu
from cpanet.runtime.processor import available_cpus

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}  # the other precisions compute in float32 or TF32


def start(workload: Workload) -> None:
    """Threads and precision; on CUDA also what a user would switch on: cuDNN's fastest algorithms."""
    torch.set_num_threads(workload.threads)
    _tf32(workload.precision != "fp32")
    if workload.device == "cuda":
        torch.backends.cudnn.benchmark = True


def _tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _autocast(workload: Workload, enabled: bool = True) -> AbstractContextManager:
    """Automatic mixed precision as PyTorch recommends it; at fp32 and TF32 it does nothing."""
    dtype = AUTOCAST.get(workload.precision)
    return torch.autocast(workload.device, dtype or torch.bfloat16, enabled=enabled and dtype is not None)


def _model(workload: Workload) -> ReferenceCPANet:
    torch.manual_seed(workload.seed)
    model = ReferenceCPANet(workload.backbone, workload.width)
    model.load_arrays(recipe_state(model.shapes()))
    return model.to(workload.device, memory_format=_memory_format(workload))


def _memory_format(workload: Workload) -> torch.memory_format:
    """channels_last for bfloat16 on a CPU, which oneDNN's convolutions take without reordering."""
    last = (workload.device, workload.precision) == ("cpu", "bf16")
    return torch.channels_last if last else torch.contiguous_format


def _tensors(workload: Workload) -> dict[str, torch.Tensor]:
    arrays = workload.inputs()._asdict()
    return {name: torch.from_numpy(array).to(workload.device) for name, array in arrays.items()}


def outputs(workload: Workload, exact: bool = True) -> dict[str, np.ndarray]:
    """Logits in evaluation mode; losses and gradients in training mode without dropout.

    ``exact``: in float64. Some gradients are sums of numbers that nearly cancel, and in float32 the reference itself may be
    a tenth off; so the differences found are the project's error, not that of both. Otherwise at the workload's precision.
    """
    model, batch = without_dropout(_model(workload)), _tensors(workload)
    if exact:
        _tf32(False)
        model = model.double()
        batch = {name: x.double() if x.is_floating_point() else x for name, x in batch.items()}
    with _autocast(workload, enabled=not exact):
        with torch.no_grad():
            logits = model.eval()(batch["query"], batch["support"], batch["support_label"])
        main, auxiliary = model.train().losses(
            batch["query"], batch["query_label"], batch["support"], batch["support_label"]
        )
    (main + workload.k * auxiliary).backward()
    found = {"logits": logits, "main loss": main, "auxiliary loss": auxiliary}
    found.update({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    return {
        name: value.detach().to(torch.float64 if exact else torch.float32).cpu().numpy()
        for name, value in found.items()
    }


def training(workload: Workload) -> Callable[[int], float]:
    """Takes that many steps as the released training loop does; returns the last main loss, once the device is done.

    In fp16 the loss is scaled, as PyTorch's documentation has it.
    """
    model, batch = _model(workload).train(), _tensors(workload)
    sgd = optimizer(model, LEARNING_RATE)
    scaler = torch.amp.GradScaler(workload.device, enabled=workload.precision == "fp16")

    def steps(number: int) -> float:
        for _ in range(number):
            with _autocast(workload):
                main, auxiliary = model.losses(
                    batch["query"], batch["query_label"], batch["support"], batch["support_label"]
                )
                total = main + workload.k * auxiliary
            sgd.zero_grad()
            scaler.scale(total).backward()
            scaler.step(sgd)
            scaler.update()
        if workload.device == "cuda":
            torch.cuda.synchronize()
        return main.item()

    return steps


def evaluation(
    workload: Workload, dataset: DefectDataset, episodes: Sequence[Episode]
) -> Callable[[], list[Counts]]:
    """A pass over ``episodes`` as the released code tests: one at a time, every image through the backbone."""
    model = _model(workload).eval()

    def one_pass() -> list[Counts]:
        counts = []
        for episode in episodes:
            batch = test_batch(dataset, [episode], workload.size)
            arrays = (batch.query, batch.support, batch.support_mask)
            with torch.no_grad(), _autocast(workload):
                logits = model(*(torch.from_numpy(array).to(workload.device) for array in arrays))
            difference = (logits[0, 1] - logits[0, 0]).float().cpu().numpy()
            counts.append(episode_counts(difference, dataset.masks[episode.query]))
        return counts

    return one_pass


def textbook_flop(workload: Workload) -> dict[str, int]:
    """Floating-point operations (two a multiply-add) of the textbook network: forward, and a training step.

    Counted from the shapes of its convolutions and matrix products, nothing is computed. Resizing, pooling,
    normalisation and the optimiser are left out.
    """
    from torch.utils.flop_counter import FlopCounterMode

    shape = (workload.batch, workload.shot, 3, workload.size, workload.size)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = ReferenceCPANet(workload.backbone, workload.width)
        query, support = torch.empty(shape[:1] + shape[2:]), torch.empty(shape)
        query_label = torch.zeros(shape[:1] + shape[3:], dtype=torch.uint8)
        support_label = torch.zeros(shape[:2] + shape[3:], dtype=torch.uint8)
        model(query, support, support_label)
        forward = counter.get_total_flops()
        main, auxiliary = model.losses(query, query_label, support, support_label)
        (main + workload.k * auxiliary).backward()
    return {"evaluation": forward, "training step": counter.get_total_flops() - forward}


def measured_peak(workload: Workload, repeats: int = 10) -> float:
    """FLOP/s of a large matrix product at its best, in the precision that training uses.

    On a CPU the best of the libraries at hand, for none is best on every make: PyTorch's own (mostly MKL), oneDNN
    through a 1×1 convolution, and NumPy's (mostly OpenBLAS) where it may use as many threads.
    """
    side = 8192 if workload.device == "cuda" else 2048
    emulated = workload.device == "cpu" and bfloat16_on_cpu() != "native"
    dtype = torch.float32 if emulated else AUTOCAST.get(workload.precision, torch.float32)
    a, b = (torch.rand(side, side, device=workload.device, dtype=dtype) for _ in range(2))
    products = [lambda: (a @ b)[0, 0].item()]  # fetching one number waits for the device
    if workload.device == "cpu":
        kernel, image = a[:, :, None, None], b.reshape(1, side, 32, side // 32)
        products.append(lambda: torch.nn.functional.conv2d(image, kernel)[0, 0, 0, 0].item())
        if workload.threads == available_cpus() and dtype == torch.float32:
            products.append(lambda: (a.numpy() @ b.numpy())[0, 0].item())
    return 2 * side**3 / min(_seconds(product, repeats) for product in products)


def _seconds(function: Callable[[], Any], repeats: int) -> float:
    """The shortest of several calls, after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def versions() -> dict[str, Any]:
    found: dict[str, Any] = {"torch": torch.__version__}
    if torch.version.cuda:
        found["torch's CUDA"] = torch.version.cuda
        found["torch's cuDNN"] = str(torch.backends.cudnn.version())
    return found
