"""What `hf-dwt` says of itself fits into 80 columns; what it does not understand is told in one line."""

import argparse
import re
import shlex

import pytest

from hf_dwt.cli import main
from hf_dwt.cli.parser import make_parser

COMMANDS = ("train", "assess", "grow", "evaluate", "demo")


def help_of(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*([command] if command else []), "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_into_80_columns_and_ends_with_an_example_that_is_understood(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(command, monkeypatch, capsys)
    assert max(map(len, text.splitlines())) <= 80
    example = re.fullmatch(r".*\nexample:\n  hf-dwt ([^\n]+)\n", text, flags=re.DOTALL)
    assert example is not None
    words = shlex.split(example[1])
    assert words[0] == command or not command
    known, rest = make_parser().parse_known_args(words)
    assert not rest or known.command in ("train", "assess", "grow")


def parsers() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction))
    assert tuple(commands.choices) == COMMANDS
    assert [each.dest for each in commands._choices_actions if each.help] == list(COMMANDS)
    return dict(commands.choices)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_does(command: str) -> None:
    parser = parsers()[command]
    assert parser.description
    assert [action.dest for action in parser._actions if not action.help] == []
    assert {"--json", "--help"} <= parser._option_string_actions.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND (see `hf-dwt --help`)"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "the following arguments are required: RECIPE.yaml (see `hf-dwt train --help`)"),
        (["assess", "a.yaml", "--standalone-loss", "low"], "invalid float value: 'low'"),
        (["train", "--max-steps", "2", "a.yaml"], "`--max-steps` stands before RECIPE.yaml, which comes first: hf-dwt"),
        (["assess", "--dry", "a.yaml", "--json"], "`--dry` stands before RECIPE.yaml"),
        (["grow", "--num-hidden-layers", "4", "./a", "-o", "b"], "`--num-hidden-layers` stands before TEACHER"),
        (["grow", "a", "--verify", "maybe"], "invalid choice: 'maybe'"),
        (["evaluate", "a", "--seed", "1"], "unrecognised arguments: --seed 1"),
        (["evaluate", "a", "--seeds", "few"], "invalid int value: 'few'"),
        (["demo", "--step", "3"], "unrecognised arguments: --step 3"),
        (["demo", "--steps", "3.5"], "invalid int value: '3.5'"),
    ],
)
def test_what_is_not_understood_is_told_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("hf-dwt: ")
    assert message in told.err
    assert told.err.count("\n") == 1
