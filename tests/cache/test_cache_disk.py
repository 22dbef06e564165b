"""A disk that fills up while a teacher is cached: here files of the process may not grow beyond a few bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import collator, examples, make_teacher, tokenizer

from hf_dwt import Teacher, TeacherCache, cache_teacher

SCRIPT = """
import resource, sys
from tiny_runs import examples, make_teacher, tokenizer
from hf_dwt import Teacher, cache_teacher
from hf_dwt.cache import writing

writing._EXAMPLES_PER_SHARD = 10
num_shards, most = map(int, sys.argv[2:])
manifest_write = writing.Manifest.write

def fill(manifest, folder):
    manifest_write(manifest, folder)
    if len(manifest.shards) == num_shards:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

writing.Manifest.write = fill
try:
    cache_teacher(Teacher(make_teacher(), tokenizer()), examples(), sys.argv[1], top_k=4)
except OSError as error:
    print(error)
    sys.exit(3)
"""


def run_until_full(folder: Path, num_shards: int, most: int) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(num_shards), str(most)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 3, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    ("num_shards", "most"),
    [
        (1, 1000),  # bytes; in the second shard
        (1, 0),  # at its first byte
        (3, 100),  # when all is there, but for the word that it is
    ],
)
def test_what_is_written_is_kept_and_gone_on_with(num_shards: int, most: int, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    said = run_until_full(folder, num_shards, most)
    assert f"The cache {str(folder)!r} could not be completed: " in said
    assert "File too large" in said
    assert "What is written is kept: mend that (make room, where the disk is full) and call `cache_teacher`" in said
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.arrow")}
    assert len(kept) == num_shards
    with pytest.raises(ValueError, match=f"is partial, {num_shards} shards are written"):
        TeacherCache(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_dwt.cache.writing._EXAMPLES_PER_SHARD", 10)
        cache = cache_teacher(Teacher(make_teacher(), tokenizer()), examples(), folder, top_k=4)
    assert "cached_ids" in cache.add_to(collator("masked")(list(examples())))
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept, "nothing was written twice"
    assert {path.name for path in folder.iterdir()} == {*cache.manifest.shards, "cache.json"}
