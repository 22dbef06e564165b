import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader

from hf_dwt.workers import with_own_seed


def moves_the_global_generator(loader: DataLoader) -> bool:
    before = torch.get_rng_state()
    next(iter(loader))
    return not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("persistent", [True, False])
def test_persistent_workers_alone_start_without_a_draw_from_the_global_generator(persistent: bool) -> None:
    plain = DataLoader(torch.arange(4), num_workers=1, persistent_workers=persistent)
    loader = prepare_data_loader(plain, num_processes=1, process_index=0)
    assert moves_the_global_generator(loader)
    loader = prepare_data_loader(plain, num_processes=1, process_index=0)
    assert with_own_seed(loader, 3) is loader
    assert moves_the_global_generator(loader) is not persistent


def test_a_loader_that_accelerate_has_not_prepared_stays_as_it_is() -> None:
    loader = DataLoader(torch.arange(4))
    assert with_own_seed(loader, 3) is loader
    assert loader.generator is None
