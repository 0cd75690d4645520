"""The tables of the monitoring report, as text, and the published numbers beside ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from qcjax.monitoring.figures import MEASURE_TEXTS, damage_name, scope_of, unit_of
from qcjax.report import published, table
from qcjax.report.table import DASH, Table, compared, number, with_interval

Results = Mapping[str, Any]
MEASURE_NAMES = {"dc": "DC", "hd": "HD"}
ESTIMATOR_NAMES = {"ours": "ours", "rca": "RCA"}
MAX_EPOCHS = 8  # of this run in the table; of more only the published ones, the one that judged and the last
EPOCHS_NOTE = "Epochs count from 1; the authors’ log counts from 0, so that its epoch 492 is 493 here."
LOSS_NAMES = {"failure": "failures", "graded": "1 − DC"}


def correlation_tables(results: Results) -> list[Table]:
    """Per scope: Pearson's r with failures counted in and dropped, beside the published r."""
    tables = []
    for name, scope in results["scopes"].items():
        rows = []
        for estimator in scope["estimators"]:
            for measure, label in MEASURE_NAMES.items():
                for key in results["structures"]:
                    cell = scope["correlation"][estimator][key][measure]
                    counted, dropped = cell["counted"], cell["dropped"]
                    replaced = (
                        counted.get(f"n_replaced_{which}", DASH) for which in ("real", "pseudo", "both")
                    )
                    paper = published.MONITORING_R[measure].get(key) if estimator == "ours" else None
                    rows.append(
                        [
                            f"{ESTIMATOR_NAMES[estimator]}, {label} {key.upper()}",
                            f"{with_interval(counted, 'r', 3)}",
                            str(counted["n"]),
                            ", ".join(map(str, replaced)) if measure == "hd" else DASH,
                            f"{with_interval(dropped, 'r', 3)}",
                            str(dropped["n"]),
                            number(paper, 3),
                        ]
                    )
        header = ["estimate, measure", "r, failures counted in", "n", "replaced (real, pseudo, both)",
                  "r, dropped as in the paper", "n", "r, paper"]  # fmt: skip
        title = f"Pearson’s r of pseudo and real measures, {scope_words(name, scope)}"
        note = "Where both distances are replaced, both are their column’s worst: such pairs agree, which raises r."
        tables.append(Table(title, header, rows, note))
    return tables


def difference_table(results: Results) -> Table | None:
    """Our r less RCA's on the same masks."""
    scope = scope_of(results, "rca")
    if scope is None:
        return None
    rows = [
        [f"{label} {key.upper()}", compared(cell, 3), str(cell["n"])]
        for measure, label in MEASURE_NAMES.items()
        for key in results["structures"]
        for cell in [scope["correlation_differences"][key][measure]]
    ]
    header = ["measure", "r of ours − r of RCA", "n"]
    return Table("Against RCA on the same masks, failures counted in", header, rows)


def ranking_tables(results: Results, policy: str) -> list[Table]:
    """Per scope and phase: mean HD and mean pHD of each method, and r_s (monitoring paper, Table 1)."""
    tables = []
    for name, scope in results["scopes"].items():
        for phase, cells in scope["ranking"][policy].items():
            keys = [key for key in results["structures"] if key in cells]
            columns = [(key, column) for key in keys for column in ("hd", *scope["estimators"])]
            header = ["method", *(f"{key.upper()} {_COLUMN_NAMES[column]}" for key, column in columns)]
            methods = [m for m in results["methods"] if any(m in cells[key]["methods"] for key in keys)]
            rows = [
                [method, *(_mean(cells[key]["methods"].get(method), column) for key, column in columns)]
                for method in methods
            ]
            r_s = ["" if column == "hd" else _r_s(cells[key]["r_s"][column]) for key, column in columns]
            if len(methods) > 1:
                rows.append(["r_s", *r_s])
            fate = "replaced" if policy == "counted" else "dropped"
            note = f"In brackets: how many were undefined and {fate}."
            if policy == "dropped" and "rca" in scope["estimators"]:
                note += " HD is over the pairs with pHD; r_s of RCA is over the pairs with its own."
            n, left_out = (next(iter(cells.values())).get(count) for count in ("n_cases", "n_left_out"))
            if n is not None:
                note += f" Means over the {n} images of which every method has a mask; others, left out: {left_out}."
            title = f"{phase}, mean distances in {unit_of(results)}, {scope_words(name, scope)}"
            tables.append(Table(title, header, rows, note))
    return tables


def published_ranking_tables() -> list[Table]:
    """Table 1 of the monitoring paper."""
    tables = []
    for phase, structures in published.MONITORING_RANKING.items():
        header = [
            "method",
            *(f"{key.upper()} {name}" for key in structures for name in ("HD", "pHD", "pHD RCA")),
        ]
        rows = [
            [method, *(number(value, 2) for cells in structures.values() for value in cells[method])]
            for method in published.MONITORING_METHODS
        ]
        r_s = published.MONITORING_R_S[phase]
        rows.append(["r_s", *(text for key in structures for text in ("", *(f"{v:.2f}" for v in r_s[key])))])
        tables.append(Table(f"{phase}, mean distances in mm, as published", header, rows))
    return tables


def flags_table(results: Results) -> Table | None:
    """Failures caught and missed and false alarms, per method and in all, of masks and of structures."""
    if not results["flags"]:
        return None
    failed = f"DC < {results['failure_dc']:g} or absent"
    rows = []
    for level, judgement, label in (
        ("case", "failed", f"masks; failure: {failed}"),
        ("case", "absent", "masks; failure: a structure absent"),
        ("structure", "failed", f"structures; failure: {failed}"),
    ):
        counts = results["flags"][level][judgement]
        rows.append([f"{label}, all", *_flag_cells(counts["all"])])
        if len(counts["methods"]) > 1 and (level, judgement) == ("case", "failed"):
            rows += [[f"– {method}", *_flag_cells(cell)] for method, cell in counts["methods"].items()]
    paper = published.MONITORING_FLAGS
    rows.append(
        ["published, masks reported as NaN", DASH, *(str(paper[key]) for key in _FLAG_KEYS[1:5]), DASH]
    )
    header = ["what is counted", "n", "failures", "caught as erroneous", "caught as suspicious", "missed",
              "false alarms"]  # fmt: skip
    return Table("What the flags catch", header, rows)


def flagged_table(results: Results) -> Table:
    """Flags per method, which need no truth."""
    cells = {"all methods": results["flagged"]["all"]} | results["flagged"]["methods"]
    rows = [[name, str(c["erroneous"]), str(c["suspicious"]), str(c["n"])] for name, c in cells.items()]
    return Table("Masks by their worst flag", ["method", "erroneous", "suspicious", "masks"], rows)


def risk_tables(results: Results) -> list[Table]:
    """Per scope and loss: AURC and its excess over the ideal, in all and per structure."""
    tables = []
    for name, scope in results["scopes"].items():
        risk = scope["risk"]
        for loss in LOSS_NAMES if risk else ():
            cells = risk[loss]
            keys = list(cells["structures"])
            rows = []
            for measure in risk["measures"]:
                cell = cells["measures"][measure]
                difference = cell.get("difference")
                rows.append(
                    [
                        MEASURE_TEXTS[measure][0],
                        with_interval(cell, "aurc", 4),
                        number(cell["excess"], 4),
                        compared(difference, 4, better=-1),
                        *(number(cells["structures"][key][measure]["excess"], 4) for key in keys),
                    ]
                )
            title = f"the failure threshold DC < {results['failure_dc']:g}" if loss == "failure" else "1 − DC"
            ideal = f"ideal {cells['ideal']:.4f}, without selection {cells['mean_loss']:.4f}"
            header = [
                "measure",
                "AURC",
                "excess",
                "less that of pDC",
                *(f"excess {key.upper()}" for key in keys),
            ]
            tables.append(
                Table(
                    f"Loss: {title} ({ideal}); {risk['n']} structures, {scope_words(name, scope)}",
                    header,
                    rows,
                    f"Structures left out, because a measure is undefined there: {risk['n_left_out']}.",
                )
            )
    return tables


def damage_table(damage: Mapping[str, Mapping[str, Any]] | None) -> Table | None:
    """Damaged against untouched ground-truth masks."""
    columns = {
        "auc": "area under the ROC curve",
        "detection_2pct": "detected at 2 % false alarms",
        "auc_with_image": "area, with the image",
        "detection_2pct_with_image": "detected, with the image",
        "flagged": "flagged",
        "rules": "breaks a rule of anatomy",
    }
    rows = [
        [damage_name(key), *(number(cells.get(column), 3) for column in columns), str(cells.get("n", DASH))]
        for key, cells in (damage or {}).items()
    ]
    header = ["damage", *columns.values(), "n"]
    return (
        Table("Ground-truth masks, damaged on purpose, against untouched ones", header, rows)
        if rows
        else None
    )


def reconstruction_table(results: Results) -> Table | None:
    """Dice of reconstructed ground truth by epoch, beside the published ones."""
    ours = {cell["epoch"]: cell for cell in results.get("reconstruction") or ()}
    theirs = published.MONITORING_RECONSTRUCTION
    judged = (results.get("monitor") or {}).get("epoch")
    shown = set(ours) if len(ours) <= MAX_EPOCHS else {judged, max(ours)} & set(ours)
    rows = [
        [f"epoch {epoch}, judged" if epoch == judged else f"epoch {epoch}"]
        + [
            number(cells.get(epoch, {}).get(key), 3)
            for cells in (ours, theirs)
            for key in ("lv", "myo", "rv")
        ]
        for epoch in sorted(shown | set(theirs))
    ]
    header = ["", *(f"{key}, {whose}" for whose in ("ours", "published") for key in ("LV", "MYO", "RV"))]
    note = EPOCHS_NOTE
    if judged is not None:
        note += f" The masks were judged by the autoencoder of epoch {judged}, of the lowest validation loss."
    return Table("Dice of reconstructed ground truth", header, rows, note) if ours else None


def seconds_table(results: Results) -> Table | None:
    """Seconds of this run beside the published ones."""
    names = {
        "train": "training the autoencoder",
        "per_case": "judging a mask",
        "rca_per_case": "RCA of an image’s masks",
    }
    return table.seconds_table(results.get("seconds") or {}, names, published.MONITORING_SECONDS)


def published_table(results: Results) -> Table:
    """The paper's headline beside ours."""
    scope = scope_of(results, "ours")
    rows = []
    for measure, label in MEASURE_NAMES.items():
        for key, paper in published.MONITORING_R[measure].items():
            cell = scope["correlation"]["ours"].get(key, {}).get(measure) if scope else None
            ours = [
                with_interval(cell[policy], "r", 3) if cell else DASH for policy in ("dropped", "counted")
            ]
            rows.append([f"Pearson r, {label} {key.upper()}", f"{paper:.3f}", *ours])
    for phase, cells in published.MONITORING_R_S.items():
        for key, (paper, _) in cells.items():
            texts = []
            for policy in ("dropped", "counted"):
                found = scope["ranking"][policy].get(phase, {}).get(key) if scope else None
                texts.append(with_interval(found["r_s"]["ours"], "r", 2) if found else DASH)
            rows.append([f"Spearman r_s, {key.upper()} {phase}", f"{paper:.2f}", *texts])
    header = ["", "published", "ours, dropped as there", "ours, failures counted in"]
    return Table("The paper’s headline beside ours", header, rows)


def scope_words(name: str, scope: Mapping[str, Any]) -> str:
    """E.g. ``120 masks of 10 subjects on which RCA was run``."""
    n = scope["n"]
    text = f"{n['cases']} masks of {n['subjects']} subjects"
    return f"{text} on which RCA was run" if name == "rca" else text


_COLUMN_NAMES = {"hd": "HD", "ours": "pHD", "rca": "pHD RCA"}
_FLAG_KEYS = ("n", "failures", "caught_erroneous", "caught_suspicious", "missed", "false_alarms")


def _flag_cells(counts: Mapping[str, int]) -> list[str]:
    return [str(counts[key]) for key in _FLAG_KEYS]


def _mean(cell: Mapping[str, Any] | None, column: str) -> str:
    if cell is None or cell[column] is None:
        return DASH
    undefined = cell["undefined"][column]
    return number(cell[column], 2) + (f"\n({undefined})" if undefined else "")


def _r_s(cell: Mapping[str, Any]) -> str:
    if cell["r"] is None:
        return DASH
    limits = "" if cell["low"] is None else f"\n[{number(cell['low'], 2)}, {number(cell['high'], 2)}]"
    return number(cell["r"], 2) + limits


def other_cases_table(cases: Sequence[Sequence[str]]) -> Table | None:
    """Flagged masks that are not pictured, a row each."""
    header = ["mask", "flag", "suspicion", "reason", "lowest real DC"]
    return Table("The other flagged masks", header, cases) if cases else None
