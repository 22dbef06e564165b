"""The study's data: recipes name files, and what a name says is made where it is not there yet.

./molecules/train-200000.txt   so many molecules of the training split of MOSES (`test-8000.txt`: of its test split)
./molecules/albert             the published ALBERT of rxnmapper, whose tokenizer all models of molecules take
./speeches/train.txt           messages of US presidents (`held_out.txt`: every tenth of them)
./speeches/tokenizer-2048      a BPE tokenizer of so many tokens, of the former
./made_up/train-200.txt        so many molecules that are none, drawn here, for a run that shall read nothing
./made_up/albert               a tiny untrained ALBERT for them, with their tokenizer
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from transformers import AlbertConfig, AlbertForMaskedLM, set_seed

from benchmarks.study.config import Study
from hf_dwt.cli.demo_inputs import ALBERT, convert_smiles_model, prepare_speeches, smiles_tokenizer
from hf_dwt.data import train_tokenizer
from hf_dwt.packages import RXNMAPPER, fetch, read_molecules

_SEED = 0
_RINGS = ("c1ccccc1", "C1CCCC1", "c1ccncc1", "C1CCNCC1")
_SIDES = ("C", "CC", "O", "N", "C(=O)", "OC", "CN(C)", "C(=O)N", "S(=O)(=O)")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def prepare(study: Study, folder: Path) -> None:
    """Make what the study's inputs and published teachers name below a folder, unless it is there.

    Raises:
        OSError: If a package that is needed can neither be found in the cache nor fetched.
    """
    for name in sorted(named_files(study)):
        target = folder / name
        for pattern, make in _MAKERS.items():
            found = re.fullmatch(pattern, name)
            if found and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                # Under another name first: what was interrupted is made again.
                half = target.with_name(f"{target.name}.half")
                make(half, *found.groups())
                half.rename(target)


def named_files(study: Study) -> set[str]:
    """Paths, relative to the study's folder, that recipes name."""
    named = {section.published for section in study.teachers.values() if section.published is not None}
    for section in study.inputs.values():
        named |= {path for path in _paths(section.data) if path.startswith("./")}
        named |= set(_paths(section.tokenizer or {}))
    return {str(Path(name)) for name in named if name.startswith("./")}


def _paths(content: Mapping[str, Any]) -> Iterator[str]:
    values = (content.get(key) for key in ("source", "evaluation_source", "name"))
    yield from (value for value in values if isinstance(value, str))


def _molecules(target: Path, split: str, count: str) -> None:
    chosen = random.Random(_SEED).sample(read_molecules(split), int(count))
    target.write_text("\n".join(chosen) + "\n")


def _albert(target: Path) -> None:
    with ZipFile(fetch(RXNMAPPER)) as wheel:
        convert_smiles_model(wheel, ALBERT, target)


def _speeches(target: Path, name: str) -> None:
    prepare_speeches(target.parent / "all")
    target.write_bytes((target.parent / "all" / name).read_bytes())


def _speech_tokenizer(target: Path, size: str) -> None:
    prepare_speeches(target.parent / "all")
    lines = (target.parent / "all" / "train.txt").read_text().splitlines()
    train_tokenizer(lines, int(size), kind="bpe").save_pretrained(target)


def _made_up(target: Path, split: str, count: str) -> None:
    draw = random.Random(f"{split}-{_SEED}")
    lines = ("".join(draw.choice(kind) for kind in (_SIDES, _RINGS, _SIDES, _RINGS, _SIDES)) for _ in range(int(count)))
    target.write_text("\n".join(lines) + "\n")


def _made_up_albert(target: Path) -> None:
    letters = sorted(set("".join((*_RINGS, *_SIDES))))
    tokenizer = smiles_tokenizer([*_SPECIAL, *letters])
    set_seed(_SEED)
    size = {"embedding_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    size |= {"intermediate_size": 32, "max_position_embeddings": 64, "vocab_size": len(tokenizer)}
    AlbertForMaskedLM(AlbertConfig(**size)).save_pretrained(target)
    tokenizer.save_pretrained(target)


_MAKERS: Mapping[str, Callable[..., None]] = {
    r"molecules/(train|test)-(\d+)\.txt": _molecules,
    r"molecules/albert": _albert,
    r"speeches/(train\.txt|held_out\.txt)": _speeches,
    r"speeches/tokenizer-(\d+)": _speech_tokenizer,
    r"made_up/(train|test)-(\d+)\.txt": _made_up,
    r"made_up/albert": _made_up_albert,
}
