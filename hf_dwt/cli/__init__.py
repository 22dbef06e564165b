"""The command line: `hf-dwt train` and `hf-dwt demo`.

Only this package prints. What a command needs is imported when the command runs, so that `--help` is quick.
"""

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors of the user's are told in one line, with exit status 2."""
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and known.command != "train":
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    try:
        if known.command == "train":
            from hf_dwt.cli.train import train

            train(known.recipe, rest, dry_run=known.dry_run, baseline=known.baseline, resume=known.resume)
        else:
            from hf_dwt.cli.demo import demo

            demo(
                causal=known.causal,
                student_size=known.student_size,
                seed=known.seed,
                minutes=known.minutes,
                steps=known.steps,
                folder=known.output,
                prepare_only=known.prepare_only,
            )
    except (ValueError, OSError, ImportError) as error:
        print(f"hf-dwt: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hf-dwt", description="Train a larger language model from the smaller one you already have."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a student by a recipe",
        description="Train a student by a recipe. Further options change the recipe: --max-steps 100, "
        "--hidden-size 512, --teacher.name ./small; - and _ are the same.",
        allow_abbrev=False,
    )
    train.add_argument("recipe", metavar="RECIPE.yaml", help="what to train, on what, how")
    train.add_argument("--dry-run", action="store_true", help="print sizes, steps and costs; read configurations only")
    train.add_argument(
        "--baseline", action="store_true", help="also train the student alone, at equal steps and at equal cost"
    )
    train.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint")

    demo = commands.add_parser(
        "demo",
        help="see it work on real data in minutes",
        description="A larger student learns with a teacher and alone. Molecules: a published 0.74M ALBERT teaches a "
        "larger BERT. With --causal: a 2-layer GPT-2 is trained on speeches first, then teaches a larger one.",
    )
    demo.add_argument("--causal", action="store_true", help="speeches and causal models instead of molecules")
    demo.add_argument(
        "--student-size",
        metavar="LAYERSxHIDDEN",
        default="4x256",
        help="layers and hidden size of the student (default: %(default)s)",
    )
    demo.add_argument("--seed", type=int, default=0, help="of masks, order and initial weights (default: 0)")
    demo.add_argument(
        "--minutes", type=float, default=5.0, help="of training, all runs together, about (default: %(default)g)"
    )
    demo.add_argument("--steps", type=int, help="steps of the distilled run, instead of --minutes")
    demo.add_argument("--output", metavar="FOLDER", help="where results go (default: demo-molecules, demo-speeches)")
    demo.add_argument("--prepare-only", action="store_true", help="fetch and write the inputs, train nothing")
    return parser
