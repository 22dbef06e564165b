"""What the README shows works, word by word."""

import re
from pathlib import Path

import pytest
from tiny_runs import WORDS, make_teacher, tokenizer

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


# Users with a GPU want pinned memory; without one PyTorch says that it does nothing.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")
def test_every_python_block_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The teacher and the text that the README assumes, in small.
    make_teacher().save_pretrained("me/bert-4-layers")
    tokenizer().save_pretrained("me/bert-4-layers")
    Path("corpus").mkdir()
    sentences = [" ".join((WORDS * 3)[start : start + 14]) for start in range(len(WORDS))]
    Path("corpus/words.txt").write_text("\n".join(sentences * 20))
    scope: dict[str, object] = {}
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        exec(block, scope)
    assert list(Path("student").glob("checkpoint-*"))


def test_the_readme_is_short_and_to_the_point() -> None:
    lines = README.splitlines()
    assert len(lines) <= 200
    assert lines.index("## Install") < 25
    assert lines.index("## Use") < 40
