"""Many runs from one command: what varies, which jobs that makes, and how each of them ends."""

from __future__ import annotations

from cpanet.sweep.callback import end_with_lost_jobs
from cpanet.sweep.job import of_several, run_job, threads

__all__ = ["end_with_lost_jobs", "of_several", "run_job", "threads"]
