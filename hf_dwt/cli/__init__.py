"""The command line: `hf-dwt train`, `assess`, `grow`, `evaluate` and `demo`.

Only this package prints. What a command needs is imported when the command runs, so that `--help` is quick.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors of the user's are told in one line, with exit status 2."""
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    own = vars(known)
    command = own.pop("command")
    if rest and command in ("demo", "evaluate"):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    try:
        if command == "train":
            from hf_dwt.cli.train import train

            train(own.pop("recipe"), rest, **own)
        elif command == "assess":
            from hf_dwt.cli.assess import assess

            assess(own.pop("recipe"), rest, **own)
        elif command == "grow":
            from hf_dwt.cli.grow import grow

            grow(own.pop("teacher"), rest, **own)
        elif command == "evaluate":
            from hf_dwt.cli.evaluate import evaluate

            evaluate(own.pop("models"), **own)
        else:
            from hf_dwt.cli.demo import demo

            demo(folder=own.pop("output"), **own)
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

    assess = commands.add_parser(
        "assess",
        help="judge a recipe's teacher before it speaks",
        description="Measure a recipe's teacher on its held-out text, and say of it what there is evidence for. "
        "Further options change the recipe, as for `train`.",
        allow_abbrev=False,
    )
    assess.add_argument("recipe", metavar="RECIPE.yaml", help="names teacher, student and text")
    assess.add_argument("--standalone-loss", type=float, metavar="NATS", help="held-out loss of the student alone")
    assess.add_argument(
        "--baseline",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="take that loss from a run of `train --baseline` (default: the recipe's own output folder)",
    )
    assess.add_argument("--json", dest="as_json", action="store_true", help="print JSON")

    grow = commands.add_parser(
        "grow",
        help="make a larger student out of a smaller model",
        description="Make a larger student out of a smaller model of the same class. Further options are fields of the "
        "student's configuration: --num-hidden-layers 24 --hidden-size 1536; - and _ are the same. Sizes left out "
        "follow from those given.",
        allow_abbrev=False,
    )
    grow.add_argument("teacher", metavar="TEACHER", help="folder or Hub id")
    grow.add_argument("-o", "--output", metavar="FOLDER", help="where the student goes, with its growth_plan.json")
    grow.add_argument(
        "--method",
        default="exact",
        help="exact (default), near, random, repeat_last, stack, interleave, spread, fpi or aki",
    )
    grow.add_argument("--depth-method", metavar="METHOD", help="another way to deepen than the method's own")
    grow.add_argument("--width-method", metavar="METHOD", help="another way to widen than the method's own")
    grow.add_argument(
        "--noise", type=float, default=0.1, help="between copies of a unit, relative to each weight (default: 0.1)"
    )
    grow.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    grow.add_argument("--dtype", help="precision of the student (default: the teacher's)")
    grow.add_argument("--revision", help="branch, tag or commit of the teacher")
    grow.add_argument(
        "--verify", choices=("yes", "full", "no"), default="yes", help="compare student and teacher (default: yes)"
    )
    grow.add_argument("--dry-run", action="store_true", help="print the plan; read the configuration only")

    _add_evaluate(commands)

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
    demo.add_argument(
        "--grow", action="store_true", help="with --causal: also train the student grown from the teacher"
    )
    demo.add_argument("--prepare-only", action="store_true", help="fetch and write the inputs, train nothing")
    return parser


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="fine-tune models on tasks and score them",
        description="Fine-tune each model on each task of a suite with each seed; print means, standard deviations and "
        "paired differences from the first model. What is finished is not repeated: the same command goes on.",
    )
    evaluate.add_argument("models", nargs="+", metavar="MODEL", help="folder or Hub id")
    evaluate.add_argument("--suite", default="demo", help="glue, demo (default), molecules, or a YAML file")
    evaluate.add_argument("--seeds", type=int, default=5, help="how many (default: 5)")
    evaluate.add_argument(
        "--method",
        choices=("full", "lora", "probe"),
        default="full",
        help="train all weights (default), adapters, or a linear classifier on the frozen model, in seconds",
    )
    evaluate.add_argument("--tasks", nargs="+", metavar="TASK", help="some tasks only, optional ones among them")
    evaluate.add_argument("--data", metavar="SOURCE", help="a copy of the suite's data set: Hub id or folder")
    evaluate.add_argument("--output", metavar="FOLDER", default="evaluation", help="for results (default: evaluation)")
