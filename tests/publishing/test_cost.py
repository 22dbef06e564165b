import pytest
from tiny_runs import make_student, make_teacher
from transformers import BertForMaskedLM

from hf_dwt.costs import StepCost, forward_flops
from hf_dwt.publishing import cost
from hf_dwt.publishing.cost import teacher_share

SHAPE = (2, 8, 3)


def test_the_share_is_that_of_the_operations_counted() -> None:
    student, teacher = make_student(), make_teacher()
    share = teacher_share((type(student), student.config), (type(teacher), teacher.config), SHAPE)
    flops = [forward_flops(BertForMaskedLM(each.config).to("meta").eval(), *SHAPE) for each in (student, teacher)]
    assert share is not None
    assert abs(share - StepCost(*flops).teacher_share) < 0.05
    assert 0 < share < 0.25


def test_what_cannot_be_counted_has_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> int:
        raise ValueError("The operations cannot be counted without data")

    monkeypatch.setattr(cost, "forward_flops", refuses)
    model = make_teacher()
    assert teacher_share((type(model), model.config), (type(model), model.config), SHAPE) is None
