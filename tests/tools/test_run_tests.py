"""The parts of `make test`, and the summary at the end."""

import json
import sys

import pytest

from tools import run_tests
from tools.run_tests import Part, summary


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Parts that take no time, in place of the real ones."""

    def of(**codes: int) -> None:
        made = {
            name: Part(name, (python(f"print('{name} ran'); raise SystemExit({codes.get(name, 0)})"),), after=after)
            for name, after in (("lint", ""), ("book", ""), ("unit", ""), ("pages", "book"), ("chapters", "book"))
        }
        monkeypatch.setattr(run_tests, "parts", lambda: made)
        monkeypatch.setattr(run_tests, "TIMES", tmp_path / "times.json")

    return of


def test_all_parts_run_and_the_summary_has_each_of_them(small, capsys):
    small()
    assert run_tests.main([]) == 0
    said = capsys.readouterr().out
    for name in ("lint", "book", "unit", "pages", "chapters"):
        assert f"{name} ran" in said
        assert name in said.partition("== summary")[2]
    assert "FAILED" not in said


def test_a_part_that_fails_fails_the_whole_and_keeps_only_what_needs_it_from_running(small, capsys):
    small(book=3)
    assert run_tests.main([]) == 1
    said = capsys.readouterr().out
    assert "unit ran" in said
    assert "pages ran" not in said
    assert "chapters: not run, because book failed" in said
    assert "FAILED" in said.partition("== summary")[2]


def test_a_failure_beside_another_part_is_not_lost(small, capsys):
    small(lint=1)
    assert run_tests.main(["lint", "book"]) == 1
    small(book=1)
    assert run_tests.main(["lint", "book"]) == 1
    assert capsys.readouterr().out.count("unit") == 0


def test_a_part_ends_with_its_first_command_that_fails():
    said: list[str] = []
    part = Part("two", (python("print('first'); raise SystemExit(5)"), python("print('second')")))
    part.run(said.append)
    assert part.code == 5
    assert "second" not in "".join(said)


def test_an_unknown_part_is_named_with_those_that_are_there(small):
    small()
    with pytest.raises(SystemExit, match="no part 'units'; the parts are lint, book, unit"):
        run_tests.main(["units"])


def test_the_summary_projects_thirty_chapters_of_the_mean_with_all_other_parts_as_they_are():
    done = [Part("unit", (), seconds=100.0), Part("chapters", (), seconds=200.0)]
    said = summary(done, {"a": 150.0, "b": 250.0}, wall=300.0)
    assert "A chapter takes 200 s on average" in said
    # 100 s of the rest, and thirty times the 100 s of wall time that each of two chapters side by side took
    assert f"{(100 + 30 * 100) / 60:.0f} minutes" in said
    assert "minutes" not in summary(done[:1], {}, wall=100.0)


def test_times_of_a_run_before_do_not_count(small, tmp_path):
    small()
    run_tests.TIMES.write_text(json.dumps({"old": 1.0}))
    run_tests.main(["lint"])
    assert run_tests.times() == {}
