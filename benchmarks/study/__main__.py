"""The study: runs the cells that have no result yet, lists them, times their steps, or writes the report.

    python -m benchmarks.study                      # what is missing of all parts, in their order
    python -m benchmarks.study --only weighting     # of one part; --list says what there is
    python -m benchmarks.study --quick --cores 2    # the same shape in small, within half an hour

The same command goes on where it was interrupted. Results are lines of JSON in benchmarks/results/study/, or in the
folder of `--output`; those of --quick and --smoke go to the cache, where models and data are: ~/.cache/hf_dwt/study*.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.study.config import SCALES, Study, read_study
from hf_dwt.sections import RecipeError, suggestion

HERE = Path(__file__).parent
CONFIG = HERE.parent / "study.yaml"
RESULTS = HERE.parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; errors of the user's are told in one line, with exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        study = read_study(options.config, options.scale)
        known = [part.name for part in study.parts] + ["teachers"]
        if wrong := [name for name in options.only if name not in known]:
            raise RecipeError(f"There is no part `{wrong[0]}`. {suggestion(wrong[0], known)}")
        return _do(study, options)
    except (ValueError, OSError, ImportError) as error:
        print(f"study: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def models_folder(study: Study) -> Path:
    """Where models and data of a study are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser().resolve() / "hf_dwt"
    return cache / "-".join(filter(None, (study.name, study.scale)))


def results_folder(study: Study, output: str | None) -> Path:
    """Where lines are kept: for the study itself beside the code, else in the cache."""
    if output is not None:
        return Path(output)
    is_own = study.scale is None and study.name == CONFIG.stem
    return RESULTS / study.name if is_own else models_folder(study) / "results"


def _do(study: Study, options: argparse.Namespace) -> int:
    folder = results_folder(study, options.output)
    from benchmarks.study.commands import list_cells, measure_times, run, write_report

    scale = [] if study.scale is None else [f"--{study.scale}"]
    config = [] if options.config == str(CONFIG) else [options.config]
    command = shlex.join(["python", "-m", "benchmarks.study", *config, *scale])
    if options.report:
        own = RESULTS / CONFIG.stem
        target = RESULTS if folder == RESULTS / study.name else folder.parent
        return write_report(study, folder, target, command, own if study.name == own.name and folder != own else None)
    if options.list:
        return list_cells(study, folder, models_folder(study), options.only)
    if options.times:
        return measure_times(study, folder, models_folder(study), options.only)
    again = shlex.join(["python", "-m", "benchmarks.study", *sys.argv[1:]])
    limits = {"cores": options.cores, "minutes": options.minutes}
    return run(study, folder, models_folder(study), options.only, again=again, **limits)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "config", nargs="?", default=str(CONFIG), help="the study's YAML (default: benchmarks/study.yaml)"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="these parts alone")
    parser.add_argument("--minutes", type=float, default=150, help="then no new cell starts (default: %(default)g)")
    parser.add_argument("--cores", type=int, default=1, metavar="N", help="cells at a time, one a core (default: 1)")
    parser.add_argument("--output", metavar="FOLDER", help="for results")
    scales = parser.add_mutually_exclusive_group()
    for scale, words in zip(SCALES, ("half an hour on two cores", "about a minute, on made-up molecules"), strict=True):
        scales.add_argument(f"--{scale}", dest="scale", action="store_const", const=scale, help=f"in small: {words}")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--list", action="store_true", help="print the cells and what they cost; run nothing")
    modes.add_argument("--times", action="store_true", help="measure step times, on one quiet core; run no cell")
    modes.add_argument("--report", action="store_true", help="write the report of the results that are there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
