"""What `hf-dwt` understands, and what it says of itself."""

import argparse
from typing import Any, NoReturn

# Keys of what `--json` prints, by command; a test compares them with what is printed.
JSON_KEYS = {
    "train": "runs, teacher, summary, output_dir; of a dry run objective, student_parameters, teacher_parameters, "
    "teacher_share, soft_loss_weight, max_steps, tokens_per_step",
    "assess": "the fields of `TeacherReport`, and doubt where there is one",
    "grow": "sizes, plan, report, output",
    "evaluate": "those of results.json: scores, differences_from_first, cells and what they are of",
    "demo": "runs, teacher, summary, completions, output_dir, curves; with --prepare-only inputs",
}


class _Parser(argparse.ArgumentParser):
    """One whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong, and end with status 2."""
        self.exit(2, f"hf-dwt: {' '.join(message.split())} (see `{self.prog} --help`)\n")


class _Formatter(argparse.HelpFormatter):
    """Fills paragraphs, and leaves lines that somebody has broken as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="hf-dwt",
        description="Train a larger language model from the smaller one you already have. `hf-dwt COMMAND --help` "
        "tells the options of a command.",
        epilog="example:\n  hf-dwt demo --causal --minutes 5",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_train, _add_assess, _add_grow, _add_evaluate, _add_demo):
        add(commands)
    for name, command in commands.choices.items():
        told = f"print JSON, and all else on stderr; keys: {JSON_KEYS[name]}"
        command.add_argument("--json", dest="as_json", action="store_true", help=told)
    return parser


def _command(commands: Any, name: str, example: str, **texts: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, epilog=f"example:\n  {example}", formatter_class=_Formatter, allow_abbrev=False, **texts
    )
    return command


def _add_train(commands: Any) -> None:
    train = _command(
        commands,
        "train",
        "hf-dwt train recipe.yaml --baseline --max-steps 1000",
        help="train a student by a recipe",
        description="Train a student by a recipe, a YAML file such as those in trainer_configs/recipes. Further "
        "options change what it says: --max-steps 100, --hidden-size 512, --teacher.name ./small; - and _ are the "
        "same. Without a launcher Ctrl-C ends the step, writes a checkpoint and prints the command that goes on.",
    )
    train.add_argument("recipe", metavar="RECIPE.yaml", help="what to train, on what text, how")
    train.add_argument("--dry-run", action="store_true", help="print sizes, steps and costs; read configurations only")
    train.add_argument(
        "--baseline", action="store_true", help="also train the student alone, at equal steps and at equal cost"
    )
    train.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint of the same command")


def _add_assess(commands: Any) -> None:
    assess = _command(
        commands,
        "assess",
        "hf-dwt assess recipe.yaml --standalone-loss 3.2",
        help="judge a recipe's teacher before it speaks",
        description="Measure a recipe's teacher on its held-out text, and say of it what there is evidence for. "
        "Further options change the recipe, as for `train`.",
    )
    assess.add_argument("recipe", metavar="RECIPE.yaml", help="names teacher, student and text")
    assess.add_argument(
        "--standalone-loss", type=float, metavar="NATS", help="held-out loss of the student alone, to compare with"
    )
    assess.add_argument(
        "--baseline",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="take that loss from what `train --baseline` left in a folder (default: the recipe's own)",
    )


def _add_grow(commands: Any) -> None:
    grow = _command(
        commands,
        "grow",
        "hf-dwt grow ./small -o ./large --num-hidden-layers 24",
        help="make a larger student out of a smaller model",
        description="Make a larger student out of a smaller model of the same class. Further options are fields of the "
        "student's configuration: --num-hidden-layers 24 --hidden-size 1536; - and _ are the same. Sizes left out "
        "follow from those given.",
    )
    grow.add_argument("teacher", metavar="TEACHER", help="the smaller model: folder or Hub id")
    grow.add_argument("-o", "--output", metavar="FOLDER", help="folder for the student and its growth_plan.json")
    grow.add_argument(
        "--method",
        default="exact",
        help="exact (default): predicts what the teacher predicts; near, random, repeat_last, stack, interleave, "
        "spread, fpi or aki",
    )
    grow.add_argument(
        "--depth-method",
        metavar="METHOD",
        help="identity, repeat_last, stack, interleave or spread, instead of the method's own",
    )
    grow.add_argument(
        "--width-method", metavar="METHOD", help="exact, near, fpi, aki or pad, instead of the method's own"
    )
    grow.add_argument(
        "--noise",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="how far copies of a unit are set apart, in standard deviations of each weight (default: 0.1)",
    )
    grow.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    grow.add_argument("--dtype", help="precision of the student, such as bfloat16 (default: the teacher's)")
    grow.add_argument("--revision", help="branch, tag or commit of the teacher")
    grow.add_argument(
        "--verify",
        choices=("yes", "full", "no"),
        default="yes",
        help="compare student and teacher on random tokens (default: yes); full: also in training mode and in bfloat16",
    )
    grow.add_argument("--dry-run", action="store_true", help="print the plan; read the configuration only")


def _add_evaluate(commands: Any) -> None:
    evaluate = _command(
        commands,
        "evaluate",
        "hf-dwt evaluate ./student ./alone --suite glue --seeds 5",
        help="fine-tune models on tasks and score them",
        description="Fine-tune each model on each task of a suite with each seed; print means, standard deviations and "
        "paired differences from the first model. What is finished is not repeated: the same command goes on. Where "
        "some cells fail the others are told, and the exit status is 1.",
    )
    evaluate.add_argument("models", nargs="+", metavar="MODEL", help="folder, Hub id, or id@revision")
    evaluate.add_argument("--suite", default="demo", help="glue, demo (default), molecules, or a YAML file")
    evaluate.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 on (default: 5)")
    evaluate.add_argument(
        "--method",
        choices=("full", "lora", "probe"),
        default="full",
        help="full: train all weights (default); lora: adapters; probe: a linear classifier on the frozen model, in "
        "seconds",
    )
    evaluate.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="these tasks only; optional ones are run only if named"
    )
    evaluate.add_argument(
        "--data", metavar="SOURCE", help="Hub id or folder of a copy of the suite's data set, to read instead"
    )
    evaluate.add_argument(
        "--output", metavar="FOLDER", default="evaluation", help="folder for results (default: %(default)s)"
    )


def _add_demo(commands: Any) -> None:
    demo = _command(
        commands,
        "demo",
        "hf-dwt demo --causal --grow --minutes 10",
        help="see it work on real data in minutes",
        description="A larger student learns with a teacher and alone. On molecules a published ALBERT of 0.74M "
        "parameters teaches a larger BERT. With --causal a 2-layer GPT-2 is trained on speeches first, then teaches a "
        "larger one. Ctrl-C ends the step, writes a checkpoint and prints the command that goes on.",
    )
    demo.add_argument("--causal", action="store_true", help="speeches and causal models instead of molecules")
    demo.add_argument(
        "--student-size",
        metavar="LAYERSxHIDDEN",
        default="4x256",
        help="layers and hidden size of the student (default: %(default)s)",
    )
    demo.add_argument("--seed", type=int, default=0, help="seed of masks, order and initial weights (default: 0)")
    demo.add_argument(
        "--minutes",
        type=float,
        default=5.0,
        help="about how long training takes, all runs together (default: %(default)g)",
    )
    demo.add_argument("--steps", type=int, help="steps of the run with the teacher, instead of --minutes")
    demo.add_argument(
        "--output", metavar="FOLDER", help="folder for inputs and results (default: demo-molecules or demo-speeches)"
    )
    demo.add_argument(
        "--grow", action="store_true", help="with --causal: also train the student grown from the teacher"
    )
    demo.add_argument("--prepare-only", action="store_true", help="fetch and write the inputs, train nothing")
    demo.add_argument("--resume", action="store_true", help="go on where Ctrl-C ended the same command")
