"""Telling a whole checkpoint from a half-written one.

`Trainer` writes `trainer_state.json` last. So a checkpoint is whole if that file is there and can be read, provided
that it is removed before a checkpoint is written over, and that no other rank is still writing when it appears.
"""

import json
import shutil
from pathlib import Path

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints
from transformers.utils import logging

logger = logging.get_logger(__name__)

# DeepSpeed keeps optimiser and schedule in a folder of its own, which this file names, and checks them itself.
_DEEPSPEED_MARK = "latest"


def is_whole(checkpoint: str | Path) -> bool:
    """Tell whether a checkpoint was written to its end."""
    try:
        json.loads((Path(checkpoint) / TRAINER_STATE_NAME).read_text())
    except (OSError, ValueError):
        return False
    return True


def last_whole_checkpoint(output_dir: str | Path) -> str:
    """Find the latest checkpoint of a run that can be resumed from.

    Raises:
        ValueError: If there is none.
    """
    found = _checkpoints(output_dir)
    whole = [checkpoint for checkpoint in found if is_whole(checkpoint)]
    if not whole:
        half_written = f" ({len(found)} were half-written and are ignored)" if found else ""
        raise ValueError(f"No valid checkpoint found in output directory ({output_dir}){half_written}.")
    return str(whole[-1])


def checkpoint_to_resume(requested: str | Path | bool | None, output_dir: str | Path) -> str | None:
    """Find the checkpoint that `resume_from_checkpoint` asks for; True is the last whole one of the run.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is half-written, holds the model alone, or there is none.
    """
    if not requested:
        return None
    checkpoint = last_whole_checkpoint(output_dir) if requested is True else str(requested)
    require_whole(checkpoint)
    require_optimizer(checkpoint)
    return checkpoint


def has_whole_checkpoint(output_dir: str | Path) -> bool:
    """Tell whether a run has left something to resume from here."""
    return any(map(is_whole, _checkpoints(output_dir)))


def _checkpoints(output_dir: str | Path) -> list[str]:
    """Folders of a run's checkpoints, whole or not, in their order."""
    return list(sort_checkpoints(str(output_dir))) if Path(output_dir).is_dir() else []


def require_whole(checkpoint: str | Path) -> None:
    """Refuse to resume from a checkpoint that is missing or half-written.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is half-written.
    """
    if not Path(checkpoint).is_dir():
        raise FileNotFoundError(f"Can't find a valid checkpoint at {str(checkpoint)!r}: there is no such folder.")
    if not is_whole(checkpoint):
        raise ValueError(
            f"The checkpoint {str(checkpoint)!r} is half-written: its {TRAINER_STATE_NAME} is missing or cut off. "
            "Pass `resume_from_checkpoint=True` for the last whole one."
        )


def require_optimizer(checkpoint: str | Path) -> None:
    """Refuse to resume from a checkpoint that holds the model alone; `Trainer` would start a new optimiser unnoticed.

    Raises:
        ValueError: If the state of the optimiser, or that of its schedule, is missing.
    """
    folder = Path(checkpoint)
    if (folder / _DEEPSPEED_MARK).is_file():
        return
    # FSDP keeps the optimiser in a folder, or a file of another ending.
    kept = {OPTIMIZER_NAME: any(folder.glob(f"*{Path(OPTIMIZER_NAME).stem}*"))}
    kept[SCHEDULER_NAME] = (folder / SCHEDULER_NAME).is_file()
    missing = [name for name, is_there in kept.items() if not is_there]
    if missing:
        raise ValueError(
            f"The checkpoint {str(checkpoint)!r} has no {' and no '.join(missing)} (`save_only_model` writes none): a "
            "new optimiser would start in the middle of the run. Resume from a checkpoint that has them, or start a "
            "new run from its weights with `from_pretrained`."
        )
    if not any(folder.glob("rng_state*.pth")):
        logger.warning(
            f"The checkpoint {str(checkpoint)!r} has no states of random generators: the resumed run will not be "
            "exactly the one that was interrupted."
        )


def require_same_world_size(checkpoint: str | Path, num_ranks: int, loads_universal: bool = False) -> None:
    """Refuse a checkpoint of DeepSpeed whose optimiser was divided among another number of ranks.

    Args:
        checkpoint: Of any engine.
        num_ranks: Of this run.
        loads_universal: Whether DeepSpeed was told to read a universal checkpoint, which fits every number.

    Raises:
        ValueError: With the command that makes it universal.
    """
    folder = Path(checkpoint)
    mark = folder / _DEEPSPEED_MARK
    if loads_universal or not mark.is_file():
        return
    state = folder / mark.read_text().strip()
    num_shares = len(list(state.glob("*zero_pp_rank_*_optim_states.pt")))
    if num_shares not in (0, num_ranks):
        raise ValueError(
            f"The checkpoint {str(checkpoint)!r} holds an optimiser that was divided among {num_shares} ranks, this "
            f"run has {num_ranks}. Run `python -m deepspeed.checkpoint.ds_to_universal --inject_missing_state "
            f"--input_folder {state} --output_folder {state}_universal`, set "
            '`"checkpoint": {"load_universal": true}` in the DeepSpeed configuration and resume from the same '
            "checkpoint."
        )


def invalidate(checkpoint: str | Path) -> None:
    """Mark a checkpoint as half-written before it is written over."""
    (Path(checkpoint) / TRAINER_STATE_NAME).unlink(missing_ok=True)


def make_room(checkpoint: Path, save_total_limit: int | None) -> None:
    """Prepare to write a checkpoint: until its end it counts as half-written; others that are so go, if few are kept.

    `Trainer` keeps the latest `save_total_limit` by their times of change, or by their steps where the times are too
    coarse to tell. Either way a half-written checkpoint can come out as the latest, and the whole ones be removed.
    """
    invalidate(checkpoint)
    if save_total_limit:
        for other in sort_checkpoints(str(checkpoint.parent)):
            if Path(other) != checkpoint and not is_whole(other):
                shutil.rmtree(other, ignore_errors=True)


def checkpoint_folder(run_dir: str | Path, step: int) -> Path:
    """Where `Trainer` keeps the checkpoint of a step."""
    return Path(run_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
