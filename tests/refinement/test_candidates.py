"""Which candidates were chosen, and how cases out of distribution came and went."""

from collections.abc import Callable

from qcjax.refinement.candidates import candidates_table, count_chosen, ood_by_epoch_table
from qcjax.refinement.table import CaseRow

LOSSES = [{"name": "refined 3", "validation_loss": 0.2}, {"name": "refined 1", "validation_loss": 0.25}]


def test_candidates_are_counted_alone_and_in_means(new_row: Callable[..., CaseRow]) -> None:
    words = ["refined 1", "mean of refined 3 and refined 1", "refined 1", "mean of refined 1 and refined 3"]
    rows = [new_row(candidate=word) for word in words]
    found = count_chosen(LOSSES, rows)
    assert [(c["name"], c["validation_loss"], c["cases"]) for c in found] == [
        ("refined 3", 0.2, 0),
        ("refined 1", 0.25, 2),
        ("means of several", None, 2),
    ]
    results = {"candidates": {"nnunet": {"SA": {"refined": found, "segmenter": [LOSSES[0] | {"cases": 4}]}}}}
    table = candidates_table(results)
    assert table is not None
    assert [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in table.rows] == [
        ["nnunet, SA, single best", "refined 3", "0.2000", "4 of 4"],
        ["nnunet, SA, refined", "refined 3", "0.2000", "0 of 4"],
        ["nnunet, SA, refined", "refined 1", "0.2500", "2 of 4"],
        ["nnunet, SA, refined", "means of several", "–", "2 of 4"],
    ]
    assert candidates_table({}) is None


def test_cases_that_became_ood_and_that_no_longer_are() -> None:
    after = [["a", "b", "c"], ["b", "d"], []]
    results = {"ood": {"nnunet": {"SA": {"cases_after_k": after}, "LA": {"cases_after_k": [["a"]]}}}}
    table = ood_by_epoch_table(results)
    assert table is not None
    assert list(table.rows) == [
        ["nnunet, SA", "0", "3", "", ""],
        ["nnunet, SA", "1", "2", "1", "2"],
        ["nnunet, SA", "2", "0", "0", "2"],
    ]
    assert ood_by_epoch_table({"ood": {"nnunet": {"LA": {"cases_after_k": [["a"]]}}}}) is None
