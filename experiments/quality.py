"""How well a model's predicted quality holds: `python -m experiments.quality --help`."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from qcjax.config.segmentation import SegmentationConfig
from qcjax.quality.check import Row, expected, rows_of
from qcjax.quality.model import (
    COVERAGE,
    OF_PROBABILITIES,
    Estimate,
    Kind,
    KnownCase,
    QualityModel,
    values_of,
)
from qcjax.quality.scales import logit
from qcjax.quality.study import (
    SIGNS,
    Ranking,
    boosting,
    calibration_draws,
    combined,
    dealt,
    held_out_estimates,
    rankings,
    ridge,
)
from qcjax.report.table import Table
from qcjax.runtime.exits import exit_code
from qcjax.runtime.files import without_nan, write_json, write_whole
from qcjax.runtime.progress import say
from qcjax.runtime.records import read_record
from qcjax.segmentation.calibration import RECORD
from qcjax.segmentation.dataset import find_labelled
from qcjax.segmentation.judge import known_case
from qcjax.segmentation.model import DESCRIPTION
from qcjax.segmentation.run import WORK

FOLDS, DRAWS = 10, 50
REFERENCE = "confidence"
THIRDS = ("lowest third of Dice", "middle third", "highest third")


@dataclass(frozen=True)
class Options:
    """Judges a model's predicted quality on the held-out masks of its own training, cross-validated by subject, and on
    other sites' cases: every signal by itself, their combination, bounds by group, calibration. Writes results.json
    and tables.md."""

    model: Path
    """Folder of a model as `qcjax train` left it, with `training`."""
    out: Path
    """Folder of the results."""
    data: Path | None = None
    """Data set that it was trained on, for its diseases; none: no group is left out."""
    site: Path | None = None
    """Model that `qcjax calibrate` left at another site, with its cases in `calibration.json`."""
    boosting: bool = False
    """Beside ridge regression, boosted trees of scikit-learn."""


@dataclass(frozen=True)
class Held:
    """Masks of subjects that their network hadn't seen."""

    structures: tuple[str, ...]
    cases: list[KnownCase]  # with the signal `suspicion` besides, which quality isn't learnt from
    diseases: list[str]  # of each case; empty strings where unknown

    @property
    def plain(self) -> list[KnownCase]:
        """The cases with those signals that quality is learnt from."""
        return [
            replace(c, signals={k: v for k, v in c.signals.items() if k != "suspicion"}) for c in self.cases
        ]


def read_held_out(folder: Path, data: Path | None) -> Held:
    """The records of a model's training. Raises ValueError where there are none."""
    structures = tuple(json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["labels"])
    cases = []
    for path in sorted((folder / WORK).glob("held_out_*.json")):
        for record in read_record(path) or ():
            case, k = known_case(record), len(structures)
            cases.append(replace(case, signals={**case.signals, "suspicion": [record["suspicion"]] * k}))
    if not cases:
        raise ValueError(f"{folder / WORK}: found no held_out_*.json; expected those that qcjax train leaves")
    if data is None:
        return Held(structures, cases, [""] * len(cases))
    of = {s.code: s.disease for s in find_labelled(SegmentationConfig(data=data)).subjects}
    return Held(structures, cases, [of[case.subject] for case in cases])


def ranked(
    cases: Sequence[KnownCase],
    subjects: Sequence[str],
    combinations: Mapping[str, np.ndarray],
) -> dict[str, Ranking]:
    """Rankings of all single signals and of what combines them."""
    scores = {
        name: sign * values_of([case.signals[name] for case in cases])
        for name, sign in SIGNS.items()
        if name in cases[0].signals
    }
    return rankings(
        scores | dict(combinations), values_of([case.dice for case in cases]), subjects, REFERENCE
    )


def of_dice(estimates: Sequence[Mapping[str, Estimate]], structures: Sequence[str]) -> np.ndarray:
    """Predicted Dice as a score, (n, k)."""
    return logit(np.array([[e[key].dice for key in structures] for e in estimates]))


def study_held_out(held: Held, with_boosting: bool) -> dict[str, Any]:
    """Everything that held-out masks tell."""
    cases, structures = held.cases, held.structures
    plain = held.plain
    subjects = [case.subject for case in cases]
    folds = dealt(subjects, FOLDS)
    say("Cross-validation by subject")
    kinds: tuple[Kind, ...] = ("segmented", "mask")
    estimates = {kind: held_out_estimates(plain, structures, kind, folds) for kind in kinds}
    names = tuple(plain[0].signals)
    combinations = {f"ridge, {kind}": of_dice(found, structures) for kind, found in estimates.items()}
    for chosen in (("confidence", "entropy", "worst_slice"), ("pdc", "confidence")):
        combinations[f"ridge, {' + '.join(chosen)}"] = combined(plain, chosen, folds, ridge)
    if with_boosting:
        combinations["boosting"] = combined(plain, names, folds, boosting)
    found: dict[str, Any] = {
        "ranking": ranked(cases, subjects, combinations),
        "rows": {kind: rows_of(found, plain, structures) for kind, found in estimates.items()},
        "groups": _groups(plain, structures, estimates["segmented"], held.diseases),
    }
    if len(set(held.diseases)) > 1:
        say("Each disease left out in turn")
        left_out = held_out_estimates(plain, structures, "segmented", dealt(held.diseases))
        found["ranking_disease_left_out"] = ranked(
            cases, subjects, {"ridge, segmented": of_dice(left_out, structures)}
        )
        found["rows_disease_left_out"] = rows_of(left_out, plain, structures)
    return found


def _groups(
    cases: Sequence[KnownCase],
    structures: Sequence[str],
    estimates: Sequence[Mapping[str, Estimate]],
    diseases: Sequence[str],
) -> dict[str, list[Row]]:
    """Rows by disease, and by the third of true Dice within the structure."""

    def part(chosen: np.ndarray, keys: Sequence[str]) -> list[Row]:
        own = np.flatnonzero(chosen).tolist()
        rows = rows_of([estimates[i] for i in own], [cases[i] for i in own], structures)
        return [row for row in rows if row.structure in keys]

    found = {d: part(np.array(diseases) == d, structures) for d in sorted(set(diseases)) if d}
    dice = values_of([case.dice for case in cases])
    for third, name in enumerate(THIRDS):
        found[name] = []
        for i, key in enumerate(structures):
            low, high = np.quantile(dice[:, i], (third / 3, (third + 1) / 3))
            inside = (dice[:, i] >= low) & ((dice[:, i] < high) | (third == 2))
            found[name] += part(inside, [key])
    return found


def study_site(held: Held, folder: Path, with_boosting: bool) -> dict[str, Any]:
    """What a model that has learnt from held-out masks is worth at another site, as it is and calibrated."""
    plain = held.plain
    model = QualityModel.fit(plain, held.structures)
    assert model is not None
    stored = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for kind in ("segmented", "mask"):
        if kind not in stored:
            continue
        cases = [KnownCase(**case | {"subject": str(case["subject"])}) for case in stored[kind]["cases"]]
        subjects = [case.subject for case in cases]
        estimates = expected(model, cases, kind)
        combinations = {f"ridge, {kind}": of_dice(estimates, held.structures)}
        if with_boosting:
            combinations["boosting"] = _transferred(plain, cases, kind)
        count = len(set(subjects))
        found[kind] = {
            "subjects": count,
            "ranking": ranked(cases, subjects, combinations),
            "rows": rows_of(estimates, cases, held.structures),
            "calibrated": {
                n: calibration_draws(model, cases, kind, n, DRAWS) for n in (9, 16) if n + 3 <= count
            },
        }
    return found


def _transferred(known: Sequence[KnownCase], cases: Sequence[KnownCase], kind: str) -> np.ndarray:
    """Logits of Dice that boosted trees, grown on known cases, predict of a site's."""
    names = [n for n in known[0].signals if kind == "segmented" or n not in OF_PROBABILITIES]
    both = [*known, *cases]
    out = np.arange(len(both)) >= len(known)
    return combined(both, names, [out], boosting)[len(known) :]


def tables(found: Mapping[str, Any], structures: Sequence[str]) -> list[Table]:
    """The results as tables."""
    made = []
    for title, ranking in _rankings(found):
        rows = [
            [
                name,
                f"{r.excess:.4f} [{r.low:.4f}, {r.high:.4f}]",
                *(f"{x:.4f}" for x in r.by_structure),
                f"{r.augrc:.4f}",
                f"{r.difference:+.4f} [{r.difference_low:+.4f}, {r.difference_high:+.4f}]"
                if name != REFERENCE
                else "–",
            ]
            for name, r in sorted(ranking.items(), key=lambda item: item[1].excess)
        ]
        header = ["score", "excess AURC", *(k.upper() for k in structures), "AUGRC", f"less {REFERENCE}'s"]
        made.append(Table(title, header, rows))
    for title, rows_found in _rows(found):
        header = ["", "masks", "subjects", "error of Dice", "bias", "Dice covered", "width", "HD covered"]
        made.append(Table(title, header, [_cells(row) for row in rows_found]))
    return made


def _rankings(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Ranking]]]:
    made = [("Ranking, cross-validated by subject", found["ranking"])]
    if "ranking_disease_left_out" in found:
        made.append(("Ranking, each disease left out in turn", found["ranking_disease_left_out"]))
    return made + [(f"Ranking at the site, {k}", v["ranking"]) for k, v in found.get("site", {}).items()]


def _rows(found: Mapping[str, Any]) -> list[tuple[str, Sequence[Row]]]:
    made = [
        (f"Predicted Dice and bounds, cross-validated by subject, {k}", v) for k, v in found["rows"].items()
    ]
    if "rows_disease_left_out" in found:
        made.append(("Each disease left out in turn", found["rows_disease_left_out"]))
    made += [(name, rows) for name, rows in found["groups"].items()]
    for kind, site in found.get("site", {}).items():
        made.append((f"At the site as it is, {kind}", site["rows"]))
        for n, draws in site["calibrated"].items():
            title = f"At the site calibrated on {n} of {site['subjects']} subjects, mean of {len(draws)} draws, {kind}"
            made.append((title, [_mean(rows) for rows in zip(*draws, strict=True)]))
    return made


def _mean(rows: Sequence[Row]) -> Row:
    numbers = np.array([row[2:] for row in rows], np.float64).mean(0)
    return Row(
        rows[0].structure, rows[0].calibrated, round(numbers[0]), round(numbers[1]), *numbers[2:].tolist()
    )


def _cells(row: Row) -> list[str]:
    shares = (f"{row.covered:.1%}", f"{row.width:.3f}", f"{row.covered_hd:.1%}")
    return [
        row.structure.upper(),
        str(row.n),
        str(row.subjects),
        f"{row.error:.4f}",
        f"{row.bias:+.4f}",
        *shares,
    ]


def markdown(table: Table) -> str:
    """A table in Markdown."""
    lines = [
        f"### {table.caption}",
        "",
        f"| {' | '.join(table.header)} |",
        "|" + " --- |" * len(table.header),
    ]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in table.rows)]) + "\n"


def _plain(value: Any) -> Any:
    """Named tuples as dictionaries, for a file."""
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def run(options: Options) -> None:
    """Judge, and write results.json and tables.md."""
    held = read_held_out(options.model, options.data)
    found = study_held_out(held, options.boosting)
    if options.site is not None:
        say("The other site")
        found["site"] = study_site(held, options.site, options.boosting)
    results = {"coverage": COVERAGE, "structures": held.structures, "masks": len(held.cases), **found}
    write_json(options.out / "results.json", without_nan(_plain(results)))
    text = "\n".join(markdown(table) for table in tables(found, held.structures))
    write_whole(options.out / "tables.md", text)
    print(text)


def main(args: Sequence[str] | None = None) -> int:
    """Parse the command line and run; the exit code."""
    options = tyro.cli(Options, prog="python -m experiments.quality", args=args)
    return exit_code(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
