"""The sentences of the uncertainty report: what was found, said no stronger than the intervals allow."""

from collections.abc import Mapping
from typing import Any

from qcjax.report.table import NO_DIFFERENCE, number
from qcjax.uncertainty import published
from qcjax.uncertainty.qc_tables import FAILURE_NAMES
from qcjax.uncertainty.summary import REFERENCE
from qcjax.uncertainty.tables import QUANTITIES, SCORED, Tables, arm_name, signed, structure_name, verdict

REFERENCE_WORDS = {"baseline": "the baseline", "control": "the control"}
Results = Mapping[str, Any]


def findings(tables: Tables) -> list[str]:
    """The headline in sentences."""
    if not tables["n"]["with_truth"]:
        return [
            "No case has ground truth: nothing could be scored, the samples’ uncertainty is all there is."
        ]
    sentences = [_means(tables)]
    sentences += [_comparison(tables, name) for name in tables["differences"]]
    if not tables["differences"]:
        sentences.append(f"Only {', '.join(tables['arms'])} ran: there is nothing to compare it with.")
    sentences += _positions(tables)
    sentences += _calibration(tables)
    sentences += _detection(tables)
    sentences += _failures(tables)
    return [sentence for sentence in sentences if sentence]


def _means(tables: Tables) -> str:
    found = tables["measures"].get("deterministic", {}).get("all", {})
    told = []
    for key in (key for key in SCORED if key in tables["structures"]):
        arms = [
            f"{arm_name(arm)} {number(100 * cell['mean'], 1)} %"
            for arm in tables["arms"]
            for cell in [found.get(arm, {}).get(key, {}).get("dc")]
            if cell and cell["mean"] is not None
        ]
        told.append(f"{structure_name(key)} {', '.join(arms)}")
    return f"Mean DSC over {tables['n']['with_truth']} cases: {'; '.join(told)}."


def _comparison(tables: Tables, name: str) -> str:
    b, _, a = name.partition(" - ")
    whole = tables["differences"][name].get("all", {})
    told = [
        f"{structure_name(key)} {signed(cell, QUANTITIES['dc'])} points, {verdict(cell, QUANTITIES['dc'])}"
        for key in SCORED
        for cell in [whole.get(key, {}).get("dc")]
        if cell and cell["n"]
    ]
    if not told:
        return ""
    why = {
        "control - baseline": " (averaging samples alone)",
        "proposed - control": " (the variance term alone)",
    }.get(name, "")
    return f"{b.capitalize()} against {REFERENCE_WORDS[a]}{why}, DSC: {'; '.join(told)}."


def _positions(tables: Tables) -> list[str]:
    name = "proposed - baseline"
    shown, n = [], 0
    for position, cells in tables["differences"].get(name, {}).items():
        for key in SCORED if position != "all" else ():
            cell = cells.get(key, {}).get("dc")
            if cell and cell["low"] is not None:
                n += 1
                judgement = verdict(cell, QUANTITIES["dc"])
                if judgement != NO_DIFFERENCE:
                    shown.append(
                        f"{position} {structure_name(key)} {signed(cell, QUANTITIES['dc'])} points, {judgement}"
                    )
    if not n:
        return []
    start = f"By slice position, proposed against the baseline, DSC: {len(shown)} of {n} intervals exclude 0"
    return [f"{start}{': ' + '; '.join(shown) if shown else ''}."]


def _calibration(tables: Tables) -> list[str]:
    start = "proposed against the baseline"
    whole = tables["differences"].get("proposed - baseline", {}).get("all", {})
    cells = tables["case_differences"].get("proposed - baseline", {})
    brier = [
        f"{structure_name(key)} {_told(cell, 'brier')}"
        for key in SCORED
        for cell in [whole.get(key, {}).get("brier")]
        if cell and cell["n"]
    ]
    names = {"ece": "expected calibration error", "entropy": "mean entropy", "variance": "mean variance"}
    told = [
        f"{name} {_told(cells[column], column)}"
        for column, name in names.items()
        if cells.get(column) and cells[column]["n"]
    ]
    sentences = [f"Brier score, {start}: {'; '.join(brier)}."] if brier else []
    if told:
        sentences.append(
            f"Calibration, {start}: {'; '.join(told)}. A smaller variance or entropy alone is no merit: saturated "
            "outputs have it too."
        )
    return sentences


def _told(cell: Mapping[str, Any], column: str) -> str:
    quantity = QUANTITIES[column]
    unit = f" {'·' + chr(160) if quantity.unit.startswith('10') else ''}{quantity.unit}"
    return f"{signed(cell, quantity)}{unit}, {verdict(cell, quantity)}"


def _detection(tables: Tables) -> list[str]:
    told = []
    for arm in tables["arms"]:
        cell = tables["detection"][arm].get("infarction")
        if cell and cell["n_normal"]:
            told.append(f"{arm} {cell['n_false_normal']} of {cell['n_normal']}")
    missed = [
        f"{arm} {cell['n_missed']} of {cell['n_with']}"
        for arm in tables["arms"]
        for cell in [tables["detection"][arm].get("infarction")]
        if cell and cell["n_with"]
    ]
    return [
        f"{start}: {', '.join(cells)}."
        for start, cells in (
            ("Normal cases in which an infarction is predicted", told),
            ("Infarctions that are missed entirely", missed),
        )
        if cells
    ]


def _failures(tables: Tables) -> list[str]:
    """Per structure: how the judged arm's DiceWithinSamples finds failures, and what is shown to do so better."""
    arm = "proposed" if "proposed" in tables["arms"] else tables["arms"][-1]
    sentences = []
    for key in (key for key in SCORED if key in tables["failures"]):
        cells = tables["failures"][key].get(arm, {})
        r_s = cells[REFERENCE]["spearman"] if REFERENCE in cells else {"r": None}
        if r_s["r"] is None:
            continue
        excess = cells[REFERENCE]["excess_aurc"]["value"]
        interval = f" [{number(r_s['low'], 2)}, {number(r_s['high'], 2)}]" if r_s["low"] is not None else ""
        text = (
            f"Finding the failures of {structure_name(key)} ({arm}): DiceWithinSamples follows the real DSC with r_s "
            f"{number(r_s['r'], 2)}{interval}, its AURC is {number(excess, 3)} above the ideal"
        )
        groups: dict[str, list[str]] = {"better": [], "worse": []}
        for name, cell in cells.items():
            compared = (cell["difference"] or {}).get("aurc")
            if compared and compared["low"] is not None and not compared["low"] <= 0 <= compared["high"]:
                groups["better" if compared["high"] < 0 else "worse"].append(FAILURE_NAMES[name])
        told = [f"{word} by AURC: {', '.join(names)}" for word, names in groups.items() if names]
        others = "; ".join(told) if told else "no other measure is shown to differ"
        sentences.append(f"{text}. Against it {others}.")
    return sentences


def what_differs(results: Results, tables: Tables) -> str:
    """Why published numbers and ours may differ."""
    n, folds = tables["n"], results.get("folds")
    how = f"cross-validation in {folds} folds" if isinstance(folds, int) else "cross-validation"
    return (
        f"What differs: the published numbers are for EMIDEC’s test set of {published.N_CASES} cases, whose ground "
        "truth is not public, after five-fold training of 1000 epochs; the other authors’ rows are those of the "
        f"challenge. Ours are for {n['with_truth']} cases by {how}, each predicted by a model that wasn’t trained on "
        f"it, with the preset “{results.get('preset') or 'not recorded'}” and the data under “What ran”. The published "
        "HD may come from the challenge’s scorer, which hands over the voxel spacing in another order of the axes than "
        "its masks have; ours is in mm along the right ones. The paper doesn’t say over which voxels its Brier score "
        "is averaged: compare it among our rows, or among the published ones. It gives no interval for its gain of 2.6 "
        "points in the infarction’s DSC, whose standard deviation is 29 points over 50 cases."
    )
