"""Only the first of two ranks pushes, and where it fails the other one does not wait for ever."""

import json
from pathlib import Path

import pytest
import ranks_that_push
from hub_server import OWNER_TOKEN, Hub
from launcher import run_on_two_ranks


@pytest.mark.slow
def test_the_first_rank_pushes_and_both_are_told_of_failures(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=":")
    hub.fail("POST", "/me/broken/commit/", 403, times=9)
    run_on_two_ranks(Path(ranks_that_push.__file__), [tmp_path, OWNER_TOKEN], timeout=150)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["pushed"] == second["pushed"] == {"type": "", "text": ""}
    assert [each.title for each in hub.repositories["me/student"].history("main")] == [
        "End of training",
        "initial commit",
    ]
    assert hub.count("POST", "/api/repos/create") == 3
    assert (first["refused before"]["type"], second["refused before"]["type"]) == ("PermissionError", "PushFailed")
    assert first["refused after"]["type"] == second["refused after"]["type"] == "PushFailed"
    for case in ("refused before", "refused after"):
        assert first[case]["text"] == second[case]["text"]
        assert "cannot be written to with this token (403)" in first[case]["text"]
    assert hub.count("POST", "/me/broken/commit/") == 1
