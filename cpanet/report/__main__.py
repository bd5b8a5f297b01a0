"""``python -m cpanet.report SWEEP_DIR…``: tables and page of one sweep, or of several as one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cpanet.console import replace_unencodable
from cpanet.errors import UserError
from cpanet.report.runs import run_directories
from cpanet.report.write import FILES, write_report


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 for what the user can put right."""
    replace_unencodable()
    parser = argparse.ArgumentParser(prog="python -m cpanet.report", description=__doc__)
    parser.add_argument(
        "sweeps", nargs="+", type=Path, metavar="SWEEP_DIR", help="directory of a multirun, or of a run"
    )
    parser.add_argument("-o", "--output", type=Path, help="where to write (default: the first SWEEP_DIR)")
    parser.add_argument(
        "--reference",
        action="append",
        metavar="KEY=VALUE",
        help="compare with the row of this value, such as method=prototype; may be given several times",
    )
    chosen = parser.parse_args(arguments)
    try:
        if unclear := [text for text in chosen.reference or () if "=" not in text]:
            raise UserError(f"--reference {unclear[0]}: no value. Give KEY=VALUE, such as method=prototype.")
        reference = dict(text.split("=", 1) for text in chosen.reference or ()) or None
        directories = list(dict.fromkeys(path.resolve() for path in chosen.sweeps))
        for path in directories:
            if not path.is_dir():
                raise UserError(f"{path}: there is no such directory. Give the directory of a multirun.")
            if next(run_directories(path), None) is None:
                raise UserError(f"{path}: there is no run in it. Give the directory of a multirun.")
        output = (chosen.output or directories[0]).resolve()
        summary = write_report(directories, output, reference)
    except UserError as error:  # before OSError: a file that cannot be written is both
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: {error.filename}: {error.strerror}. Choose another place with --output.", file=sys.stderr
        )
        return 2
    done = sum(run.completed for run in summary.runs)
    print(f"{len(summary.runs)} runs, {done} of them completed → {output}/{{{','.join(FILES)}}}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
