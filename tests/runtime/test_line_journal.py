"""A journal goes on after a kill: what is whole counts, what isn't is gone."""

from pathlib import Path

from qcjax.runtime.line_journal import Line, LineJournal


def entry(line: Line, offset: int) -> tuple[str, int]:
    return line["key"], offset


def test_the_last_line_of_a_key_counts_and_half_a_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    journal = LineJournal(path, entry)
    journal.append({"key": "a", "value": 1}, {"key": "b", "value": 2})
    journal.append({"key": "a", "value": 3})
    with path.open("a") as file:
        file.write('{"key": "c", "va')
    again = LineJournal(path, entry)
    assert again.entries.keys() == {"a", "b"}
    assert [line["value"] for line in again.lines(again.entries[k] for k in "ab")] == [3, 2]
    again.append({"key": "c", "value": 4})
    assert [line["value"] for line in LineJournal(path, entry).lines(again.entries.values())] == [3, 2, 4]


def test_a_damaged_line_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"key": "a"}\n{"no": 1}\nnot json\n{"key": "b"}\n')
    journal = LineJournal(path, entry)
    assert [line["key"] for line in journal.lines(journal.entries.values())] == ["a", "b"]
