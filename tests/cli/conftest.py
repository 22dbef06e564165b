"""A recipe of tiny models, in an empty working directory."""

from pathlib import Path

import pytest
from tiny_runs import WORDS, make_teacher, tokenizer

RECIPE = """
teacher: teacher
student: {hidden_size: 24, num_hidden_layers: 2}
data: {source: text.txt, evaluation_source: text.txt, form: sentences, length: 24, num_evaluation_examples: 40}
arguments: {output_dir: student, use_cpu: true, disable_tqdm: true, max_steps: 4, eval_strategy: "no"}
"""


@pytest.fixture
def recipe_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`recipe.yaml`, with the masked teacher and the text that it names."""
    monkeypatch.chdir(tmp_path)
    make_teacher().save_pretrained("teacher")
    tokenizer().save_pretrained("teacher")
    rows = (" ".join((WORDS * 3)[start : start + 14]) for start in range(len(WORDS)))
    (tmp_path / "text.txt").write_text("\n".join(rows))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path
