"""Two ranks push to the Hub of the process that has launched them; as a script it saves what each rank was told."""

import json
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from trainer_runs import make_trainer

from hf_dwt.hub.transience import Patience

CASES: dict[str, dict[str, Any]] = {
    "pushed": {"hub_model_id": "me/student"},
    "refused before": {"hub_model_id": "other/student"},
    "refused after": {"hub_model_id": "me/broken"},
}


def told(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Type and text of the error that this rank gets, of '' for none."""
    common = {"push_to_hub": True, "max_steps": 1, "hub_strategy": "end", "teacher": None}
    try:
        trainer = make_trainer(folder, **common, **settings)
        trainer.patience = Patience(attempts=2, first_wait=0.01, limit=5.0)
        trainer.train()
    except OSError as error:
        return {"type": type(error).__name__, "text": str(error)}
    return {"type": "", "text": ""}


def main(folder: Path, token: str) -> None:
    torch.set_num_threads(1)
    huggingface_hub.constants.HF_HUB_OFFLINE = False
    results = {name: told(folder / name, {**settings, "hub_token": token}) for name, settings in CASES.items()}
    rank = torch.distributed.get_rank()
    (folder / f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
