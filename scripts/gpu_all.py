"""Everything that a GPU has to show, in order: doctor, parity with the CPU, benchmarks, tables.

A doctor or a parity that fails ends it, unless ``--anyway``.
"""

from __future__ import annotations

import sys

from scripts import gpu_benchmarks, gpu_doctor, gpu_parity, gpu_tables, stages

STAGES = (gpu_doctor.STAGE, gpu_parity.STAGE, gpu_benchmarks.STAGE, gpu_tables.STAGE)

if __name__ == "__main__":
    sys.exit(stages.main("gpu_all", __doc__ or "", STAGES))
