"""What `scripts/test FILTER...` selects."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts/lib"))

filters = pytest.importorskip("filters")


def selected(*words: str) -> filters.Selection:
    selection = filters.Selection(ROOT)
    selection.add(list(words))
    assert selection.unknown == []
    return selection


@pytest.mark.parametrize("word", ["genie-session", "session", "controlplane/session/"])
def test_a_crate_goes_by_name_and_by_folder(word: str) -> None:
    assert selected(word).nextest() == ["-p", "genie-session", "-E", "package(genie-session)"]
    assert selected(word).builds() == []


def test_crates_that_start_programs_build_them() -> None:
    assert "genie-executor" in selected("genie-tests").builds()


@pytest.mark.parametrize(
    "word", ["test_filters", "test_filters.py", "py-frontend/tests/test_filters.py"]
)
def test_a_python_file_goes_by_name_and_by_path(word: str) -> None:
    assert selected(word).python == ["py-frontend/tests/test_filters.py"]
    assert selected(word).nextest() == []
    assert "genie-py" in selected(word).builds()


def test_a_part_of_a_name_finds_its_tests_in_both_languages() -> None:
    selection = selected("span_is_exact_or_refused")
    assert selection.nextest()[:2] == ["-p", "genie-session"]
    assert selection.python == []
    selection = selected("part_of_a_name_finds_its_tests")
    assert selection.nextest() == []
    (name,) = selection.python
    assert name.endswith("::test_a_part_of_a_name_finds_its_tests_in_both_languages")


def test_a_file_of_rust_tests_goes_by_name() -> None:
    assert selected("arbitrary_segments").nextest()[2:] == [
        "-E",
        "binary_id(genie-controlplane::arbitrary_segments)",
    ]


def test_what_is_nothing_is_said() -> None:
    selection = filters.Selection(ROOT)
    selection.add(["no_such_test_any" + "where"])
    assert len(selection.unknown) == 1
