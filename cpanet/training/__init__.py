"""Training: the loop over epochs, what a checkpoint keeps of it, the batches and the test episodes it meets.

Importing it starts Jittor. The task that sets a run up and records its end is ``cpanet.tasks.train``.
"""

from cpanet.training.batches import TrainingBatches
from cpanet.training.checkpoints import Checkpoints, Learner
from cpanet.training.evaluator import Evaluator
from cpanet.training.state import TrainingState
from cpanet.training.trainer import Interrupted, Trainer

__all__ = [
    "Checkpoints",
    "Evaluator",
    "Interrupted",
    "Learner",
    "Trainer",
    "TrainingBatches",
    "TrainingState",
]
