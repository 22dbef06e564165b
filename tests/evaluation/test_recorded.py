from hf_dwt.evaluation.recorded import Recorded


def test_the_last_result_is_kept_and_handed_on():
    recorded = Recorded(lambda one, other=0: [one, other])
    assert recorded.result is None
    recorded(1)
    assert recorded(2, other=3) is recorded.result
    assert recorded.result == [2, 3]
