"""Runs all cases of some engines on the ranks that it is started on, and saves what came out."""

import faulthandler
import sys
from pathlib import Path

import datasets
import equality_cases
import placement_cases
import torch
from engines import prepare
from transformers.utils import logging


def main(folder: Path, groups: str, engines: list[str]) -> None:
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    cases_of = {"equality": equality_cases.cases_of, "placement": placement_cases.cases_of}
    for engine in engines:
        prepare(engine)
        for group in groups.split(","):
            for name, case in cases_of[group](engine).items():
                # What hangs or fails is named, and where it is.
                print(name, flush=True)
                faulthandler.dump_traceback_later(60, exit=True)
                value = case(folder / name)
                torch.save(value, folder / f"{name}.{torch.distributed.get_rank()}.pt")
    faulthandler.cancel_dump_traceback_later()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
