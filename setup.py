"""Build beyond setup.cfg: ``conf/`` and ``sweeps/`` travel inside the installed package, as ``cpanet/_conf``."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfiguration(build_py):
    def run(self) -> None:
        super().run()
        if not getattr(self, "editable_mode", False):  # a checkout has them beside the package
            target = Path(self.build_lib, "cpanet", "_conf")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(
                Path(__file__).parent / "conf", target
            )  # conf/sweep is a link to sweeps/: its files


setup(cmdclass={"build_py": BuildWithConfiguration})
