import datasets
import pytest
import torch
from transformers import DataCollatorForLanguageModeling, default_data_collator

from hf_dwt.collators import choose_collator, evaluation_collator, set_epoch, stacked
from hf_dwt.data import CausalCollator, MaskingCollator
from hf_dwt.evaluation.reseeded import ReseededCollator


class MapStyle(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


UNLABELLED, LABELLED = [{"input_ids": [1, 2]}], [{"input_ids": [1, 2], "labels": [1, -100]}]
FORMS = [
    datasets.Dataset.from_list,
    lambda rows: datasets.Dataset.from_list(rows).to_iterable_dataset(),
    lambda rows: datasets.IterableDataset.from_generator(lambda: iter(rows)),
    lambda rows: {"first": datasets.Dataset.from_list(rows)},
    lambda rows: datasets.DatasetDict({"first": datasets.Dataset.from_list(rows)}),
    list,
    MapStyle,
    Stream,
]
every_form = pytest.mark.parametrize(
    "form", FORMS, ids=["map", "iterable", "unnamed", "dict", "dsdict", "list", "torch", "stream"]
)


@pytest.fixture
def choose(tokenizer):
    def choose(kind="masked", given=None, dataset=UNLABELLED, **changes):
        settings = {"default": default_data_collator, "processing_class": tokenizer, "seed": 3} | changes
        settings = {"train_dataset": dataset, "eval_dataset": None} | settings
        return choose_collator(kind, given, **settings)

    return choose


@every_form
def test_examples_without_labels_are_masked_for_a_masked_model(choose, form, tokenizer, caplog):
    collator = choose("masked", dataset=form(UNLABELLED))
    assert isinstance(collator, MaskingCollator)
    assert (collator.tokenizer, collator.seed, collator.mask_probability) == (tokenizer, 3, 0.15)
    assert "15 % of their tokens are masked" in caplog.text


@every_form
def test_examples_without_labels_are_copied_for_a_causal_model(choose, form, caplog):
    assert isinstance(choose("causal", dataset=form(UNLABELLED)), CausalCollator)
    assert "labels: they are copied from `input_ids`" in caplog.text


@every_form
@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_examples_with_labels_keep_the_collator_of_trainer(choose, form, kind, caplog):
    assert choose(kind, dataset=form(LABELLED)) is default_data_collator
    assert not caplog.records


@pytest.mark.parametrize("name", ["label", "label_ids"])
def test_classes_of_examples_are_no_labels_of_a_language_model(choose, name):
    rows = [{"input_ids": [5, 6], name: 1}, {"input_ids": [7], name: 0}]
    masking, causal = choose("masked", dataset=rows), choose("causal", dataset=datasets.Dataset.from_list(rows))
    assert isinstance(masking, MaskingCollator)
    assert isinstance(causal, CausalCollator)
    for collator in (masking, causal):
        assert collator(rows).keys() == {"input_ids", "attention_mask", "labels"}


def test_labels_that_are_shifted_already_keep_the_collator_of_trainer(choose):
    assert choose("causal", dataset=[{"input_ids": [1, 2], "shift_labels": [2, -100]}]) is default_data_collator


def test_what_is_chosen_is_said_once(choose, caplog):
    for _ in range(3):
        choose("masked")
    assert len(caplog.records) == 1


def test_no_data_keep_the_collator_of_trainer(choose):
    assert choose(dataset=None) is default_data_collator


@pytest.mark.parametrize("dataset", [[], Stream([]), datasets.Dataset.from_list([])], ids=["list", "stream", "map"])
def test_empty_data_are_no_error_here(choose, dataset):
    assert isinstance(choose(dataset=dataset), MaskingCollator)


def test_a_users_collator_is_kept_and_warned_about_where_it_draws_masks(choose, tokenizer, caplog):
    given = DataCollatorForLanguageModeling(tokenizer)
    assert choose("masked", given) is given
    assert "a resumed run will see other masks than an uninterrupted one" in caplog.text


def test_a_collator_that_resumes_is_not_warned_about(choose, tokenizer, caplog):
    given = MaskingCollator(tokenizer, mask_probability=0.4)
    assert choose("masked", given) is given
    causal = CausalCollator(tokenizer)
    assert choose("causal", causal) is causal
    assert choose("masked", default_data_collator, dataset=LABELLED) is default_data_collator
    assert not caplog.records


@pytest.mark.parametrize("dataset", [UNLABELLED, LABELLED, None], ids=["unlabelled", "labelled", "none"])
@pytest.mark.parametrize("theirs", [False, True], ids=["ours", "of transformers"])
def test_a_collator_that_makes_labels_for_the_other_kind_is_refused(choose, tokenizer, theirs, dataset):
    masking = DataCollatorForLanguageModeling(tokenizer) if theirs else MaskingCollator(tokenizer)
    causal = DataCollatorForLanguageModeling(tokenizer, mlm=False) if theirs else CausalCollator(tokenizer)
    for kind, other, right in [("causal", masking, "Causal"), ("masked", causal, "Masking")]:
        text = f"labels for .* language models, `model` is a {kind} one. Pass a `hf_dwt.data.{right}Collator`"
        with pytest.raises(ValueError, match=text):
            choose(kind, other, dataset=dataset)
    assert choose("masked", masking, dataset=dataset) is masking
    assert choose("causal", causal, dataset=dataset) is causal


def test_masks_that_stay_the_same_in_every_epoch_are_told_in_training_and_taken(choose, tokenizer, caplog):
    given = MaskingCollator(tokenizer).for_evaluation()
    assert choose("masked", given, train_dataset=None, eval_dataset=UNLABELLED) is given
    assert not caplog.records
    assert choose("masked", given) is given
    assert "made by `for_evaluation()`: training hides the same tokens in every epoch" in caplog.text


def test_examples_with_labels_are_stacked_as_they_are():
    batch = stacked(LABELLED * 2)
    assert {name: values.tolist() for name, values in batch.items()} == {
        "input_ids": [[1, 2], [1, 2]],
        "labels": [[1, -100], [1, -100]],
    }
    assert batch["labels"].dtype == torch.int64


@pytest.mark.parametrize("form", ["torch", "numpy"])
def test_examples_of_tensors_and_arrays_are_stacked_as_those_of_lists(form):
    rows = datasets.Dataset.from_list(LABELLED * 2).with_format(form)
    batch = stacked([rows[0], rows[1]])
    for name, values in stacked(LABELLED * 2).items():
        assert torch.equal(batch[name], values)


def test_an_epoch_draws_masks_where_they_follow_it(tokenizer, examples):
    training, batch = MaskingCollator(tokenizer), [examples[index] for index in range(8)]
    for collator, changes in [(training, True), (training.for_evaluation(), False)]:
        before = collator(batch)["labels"]
        set_epoch(collator, 1)
        assert torch.equal(collator(batch)["labels"], before) is not changes
    set_epoch(default_data_collator, 1)


def test_masks_without_a_tokenizer_are_refused(choose):
    with pytest.raises(ValueError, match="no `labels`, and without a tokenizer they cannot be masked"):
        choose("masked", processing_class=None)
    assert isinstance(choose("causal", processing_class=None), CausalCollator)


def test_evaluation_masks_do_not_follow_the_epoch(tokenizer, examples):
    training = MaskingCollator(tokenizer)
    evaluation = evaluation_collator(training, seed=0)
    batch = [examples[index] for index in range(8)]
    first, first_in_training = evaluation(batch), training(batch)
    training.set_epoch(1)
    assert torch.equal(evaluation(batch)["labels"], first["labels"])
    assert not torch.equal(training(batch)["labels"], first_in_training["labels"])


def test_a_users_collator_is_reseeded_for_evaluation(tokenizer, examples):
    given = DataCollatorForLanguageModeling(tokenizer)
    evaluation = evaluation_collator(given, seed=5)
    assert isinstance(evaluation, ReseededCollator)
    batch = [examples[index] for index in range(8)]
    assert torch.equal(evaluation(batch)["labels"], evaluation(batch)["labels"])
    assert not torch.equal(given(batch)["labels"], given(batch)["labels"])


def test_a_users_collator_with_a_seed_makes_the_same_masks_in_each_evaluation(tokenizer, examples):
    given = DataCollatorForLanguageModeling(tokenizer, seed=7)
    batch = [examples[index] for index in range(8)]
    untouched, first = DataCollatorForLanguageModeling(tokenizer, seed=7)(batch), given(batch)
    assert torch.equal(first["labels"], untouched["labels"])
    state = given.generator.get_state()
    evaluation = evaluation_collator(given, seed=5)
    assert torch.equal(evaluation(batch)["labels"], evaluation(batch)["labels"])
    assert torch.equal(given.generator.get_state(), state)
    assert not torch.equal(given(batch)["labels"], first["labels"])


def test_a_collator_without_chance_is_used_as_it_is(tokenizer):
    given = CausalCollator(tokenizer)
    assert evaluation_collator(given, seed=0) is given
