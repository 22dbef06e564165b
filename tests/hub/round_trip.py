"""A student is pushed to a temporary repository, pulled by its commit as a teacher, and removed; token in HF_TOKEN."""

import sys
import uuid
from pathlib import Path

import torch
from huggingface_hub import HfApi
from tiny_runs import tokenizer, weights_of
from trainer_runs import make_trainer

from hf_dwt import load_teacher


def main(folder: Path) -> None:
    api = HfApi()
    name = f"{api.whoami()['name']}/hf-dwt-test-{uuid.uuid4().hex[:12]}"
    pushing = {"push_to_hub": True, "hub_model_id": name, "hub_private_repo": True, "hub_revision": "try"}
    trainer = make_trainer(folder, max_steps=1, **pushing)
    try:
        trainer.train()
        commit = api.model_info(name, revision="try").sha
        assert len(api.list_repo_commits(name, revision="try")) == 2
        assert trainer.push_to_hub().oid == commit
        teacher = load_teacher(name, revision="try")
        assert teacher.origin.commit == commit
        trained = weights_of(trainer.model)
        assert all(torch.equal(value, trained[key]) for key, value in weights_of(teacher.model).items())
        assert teacher.processing_class.get_vocab() == tokenizer().get_vocab()
    finally:
        api.delete_repo(name)
    print("round trip done")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
