import time

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from hf_dwt.hub.transience import Patience, Stalled, is_transient, patiently, within

QUICK = Patience(attempts=3, first_wait=0.001)


def answer(status: int) -> HfHubHTTPError:
    response = httpx2.Response(status, request=httpx2.Request("GET", "http://127.0.0.1"))
    return HfHubHTTPError("no", response=response)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        *((answer(status), True) for status in (429, 500, 502, 503, 504)),
        *((answer(status), False) for status in (400, 401, 403, 404, 409, 412)),
        *((error, True) for error in (httpx2.ReadError("lost"), httpx2.ConnectTimeout("late"), Stalled("late"))),
        *((error, False) for error in (ValueError("wrong"), OSError("disk full"))),
    ],
)
def test_some_failures_pass_by_themselves(error: Exception, passes: bool) -> None:
    assert is_transient(error) is passes


@pytest.mark.parametrize(("status", "calls"), [(503, 3), (403, 1)])
def test_attempts_have_a_bound(status: int, calls: int) -> None:
    seen: list[int] = []

    def fails(number: int) -> None:
        seen.append(number)
        raise answer(status)

    with pytest.raises(HfHubHTTPError):
        patiently(fails, QUICK)
    assert seen == list(range(calls))


@pytest.mark.parametrize("attempts", [0, -1])
def test_a_request_that_would_never_be_made_is_refused(attempts: int) -> None:
    with pytest.raises(ValueError, match=f"`attempts` must be at least 1, got {attempts}"):
        Patience(attempts=attempts)


def test_the_first_success_is_taken() -> None:
    def second_time(number: int) -> int:
        if not number:
            raise answer(503)
        return number

    assert patiently(second_time, QUICK) == 1


def test_a_call_that_stalls_is_left_behind() -> None:
    started = time.perf_counter()
    with pytest.raises(Stalled, match=r"no answer within 0\.05 seconds"):
        within(0.05, lambda: time.sleep(2))
    assert time.perf_counter() - started < 1
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
