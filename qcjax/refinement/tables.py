"""The report's tables, as text: what stands in each cell, and the words that an interval allows."""

from collections.abc import Mapping
from typing import Any

from qcjax.data.subject import PHASES, VIEWS
from qcjax.labels import CARDIAC
from qcjax.refinement.failures import REFERENCE
from qcjax.refinement.figures import last_stage
from qcjax.refinement.table import STAGES, STRUCTURES
from qcjax.report import published
from qcjax.report.failure_tables import measure_table
from qcjax.report.style import VIEW_NAMES
from qcjax.report.table import DASH, NBSP, Results, Table, compared, mean_sd, number

DIGITS = {"dc": 3, "hd": 1}
BETTER = {"dc": 1, "hd": -1}  # sign of a good difference
STAGE_NAMES = {
    "segmenter": "M: the single best segmenter",
    "mean": "the mean of all candidates",
    "mirrored": "M and its mirror images",
    "largest": "M, largest pieces",
    "baseline": "baseline: these together, without QC",
    "selection": "{M}+QC: selection only",
    "control": "control: trained on without QC, then selection",
    "refined": "full: refined, then selection",
    "oracle_gate": "the better of refined and without QC, by the truth",
    "random_gate": "as many refined masks as the gate takes, by chance",
    "gated": "gated: refined where its quality is predicted to be higher",
}
STAGE_WORDS = {
    "segmenter": "single best",
    "mean": "mean of all",
    "mirrored": "mirrored",
    "largest": "largest pieces",
    "baseline": "baseline",
    "selection": "selection",
    "control": "control",
    "refined": "refined",
    "oracle_gate": "oracle gate",
    "random_gate": "random gate",
    "gated": "gated",
}


def average_hd(average: Mapping[str, Any]) -> str:
    """The views' average distance, with the number of undefined ones where there are any."""
    text, missing = number(average["hd"], 1), average.get("n_missing")
    return text + (f"\n({missing}{NBSP}undefined)" if missing and average["hd"] is not None else "")


def headline_tables(results: Results, segmenter: str) -> list[Table]:
    """Per view and for the average: the four stages."""
    tables = []
    for view in VIEWS:
        stages = results["ablation"][segmenter].get(view, {})
        rows = [
            [STAGE_NAMES[stage], mean_sd(stages[stage]["dc"], "dc"), mean_sd(stages[stage]["hd"], "hd"),
             str(stages[stage]["dc"]["n"])]
            for stage in STAGES
            if stage in stages
        ]  # fmt: skip
        if rows:
            tables.append(Table(f"{view}, {VIEW_NAMES[view]}", ["stage", "DC", "HD (mm)", "n"], rows))
    averages = results["average"][segmenter]
    reasons = {averages[stage]["reason"] for stage in averages if averages[stage].get("reason")}
    rows = [
        [STAGE_NAMES[stage], number(averages[stage]["dc"], 3), average_hd(averages[stage])]
        for stage in STAGES
        if stage in averages
    ]
    if rows:
        note = f"Not available: {'; '.join(sorted(reasons))}." if reasons else ""
        tables.append(Table("AVG, 0.75 SA + 0.25 LA", ["stage", "DC", "HD (mm)"], rows, note))
    return tables


def difference_tables(results: Results, segmenter: str) -> list[Table]:
    """Per view: paired differences between stages, their 95 % intervals and what they allow to be said."""
    tables = []
    for view, comparisons in results["differences"].get(segmenter, {}).items():
        rows = []
        for name, cells in comparisons.items():
            b, _, a = name.partition(" - ")
            words = [f"{STAGE_WORDS[b]} against {STAGE_WORDS[a]}"]
            for measure in ("dc", "hd"):
                words.append(compared(cells[measure], DIGITS[measure], BETTER[measure]))
            counts = dict.fromkeys(str(cells[measure]["n"]) for measure in ("dc", "hd"))
            rows.append([*words, f",{NBSP}".join(counts)])
        unit = "subjects" if view == "AVG" else "cases"
        header = ["comparison", "difference in DC", "difference in HD (mm)", "n"]
        if rows:
            tables.append(
                Table(
                    f"{view}, {VIEW_NAMES[view]}: n counts {unit} (in DC, in HD where it differs)",
                    header,
                    rows,
                )
            )
    return tables


def disease_tables(results: Results, segmenter: str) -> list[Table]:
    """Per view: the last stage by disease, beside Table 1 of the refinement paper."""
    tables = []
    for view in VIEWS:
        stages = results["ablation"][segmenter].get(view)
        if not stages:
            continue
        stage = last_stage(stages)
        ours = stages[stage]["by_disease"]
        codes = [code for code in published.BY_DISEASE if code in ours]
        codes += [code for code in ours if code not in published.BY_DISEASE]
        rows = []
        for code in codes:
            paper = published.BY_DISEASE.get(code)
            dc, hd = paper.of(view) if paper else (None, None)
            rows.append(
                [
                    (paper.name if paper else code) + (" *" if code in published.UNSEEN_DISEASES else ""),
                    mean_sd(ours[code]["dc"], "dc"),
                    mean_sd(ours[code]["hd"], "hd"),
                    str(ours[code]["dc"]["n"]),
                    f"{dc.mean:.3f} ±{NBSP}{dc.sd:.3f}" if dc else DASH,
                    f"{hd.mean:.2f} ±{NBSP}{hd.sd:.2f}" if hd else DASH,
                ]
            )
        if rows:
            header = ["disease", "DC, ours", "HD, ours", "n", "DC, paper", "HD, paper"]
            note = "* not among the labelled training data of the challenge"
            tables.append(Table(f"{view}, {STAGE_WORDS[stage]} stage; HD in mm", header, rows, note))
    return tables


def vendor_tables(results: Results, segmenter: str) -> list[Table]:
    """Per view: Dice and distance by scanner vendor, single best segmenter and last stage."""
    tables = []
    for view in VIEWS:
        stages = results["ablation"][segmenter].get(view)
        if not stages:
            continue
        shown = list(dict.fromkeys([min(stages, key=STAGES.index), last_stage(stages)]))
        vendors = list(stages[shown[0]]["by_vendor"])
        header = [
            "vendor",
            *(f"{name}, {STAGE_WORDS[stage]}" for stage in shown for name in ("DC", "HD")),
            "n",
        ]
        rows = []
        for vendor in vendors:
            cells = [
                stages[stage]["by_vendor"][vendor] for stage in shown if vendor in stages[stage]["by_vendor"]
            ]
            texts = [mean_sd(cell[measure], measure) for cell in cells for measure in ("dc", "hd")]
            rows.append([vendor, *texts, str(cells[0]["dc"]["n"])])
        if rows:
            tables.append(Table(f"{view}, {VIEW_NAMES[view]}; HD in mm", header, rows))
    return tables


def structure_table(results: Results, segmenter: str) -> Table | None:
    """All three structures at the last stage."""
    rows = []
    for view in VIEWS:
        stages = results["ablation"][segmenter].get(view)
        for structure in CARDIAC if stages else ():
            cell = stages[last_stage(stages)]["structures"][structure.key]
            if cell["dc"]["mean"] is not None:
                rows.append(
                    [f"{view}, {structure.name}", mean_sd(cell["dc"], "dc"), mean_sd(cell["hd"], "hd"),
                     str(cell["dc"]["n"])]
                )  # fmt: skip
    return (
        Table(f"{segmenter}: every structure, last stage", ["structure", "DC", "HD (mm)", "n"], rows)
        if rows
        else None
    )


def qc_table(results: Results) -> Table | None:
    """Correlations of pseudo with real measures of the RV, and the autoencoder's own Dice on ground truth."""
    rows = []
    for segmenter, views in results["qc"].items():
        for view, cell in views.items():
            texts = []
            for measure in ("dc", "hd"):
                pearson, spearman = cell[measure]["pearson"], cell[measure]["spearman"]
                texts += [number(pearson["r"], 2), number(spearman["r"], 2), str(pearson["n"])]
            ceiling = cell.get("reconstruction_dice") or {}
            texts.append(" / ".join(number(ceiling.get(key), 2) for key in STRUCTURES) if ceiling else DASH)
            rows.append([f"{segmenter}, {view}", *texts])
    header = ["segmenter, view", "pDC–DC r", "Spearman", "n", "pHD–HD r", "Spearman", "n",
              "reconstruction DC (LV / MYO / RV)"]  # fmt: skip
    return Table("Right ventricle, single best segmenter", header, rows) if rows else None


def ood_table(results: Results) -> Table | None:
    """Thresholds per phase and the number of OoD cases before and after refinement."""
    rows = []
    for segmenter, views in (results.get("ood") or {}).items():
        for view, found in views.items():
            after = found.get("cases_after_k") or []
            limits = found.get("thresholds") or {}
            cells = [limits.get(phase, {}) for phase in PHASES]
            pairs = [(number(cell.get("low"), 3), _upper(cell)) for cell in cells]
            texts = [text for pair in pairs for text in pair]
            counts = [str(len(after[0])), str(len(after[-1])), str(len(after) - 1)] if after else [DASH] * 3
            looked_at = str(found["looked_at"]) if "looked_at" in found else DASH
            rows.append([f"{segmenter}, {view}", *texts, looked_at, *counts])
    columns = [f"{phase} {bound}" for phase in PHASES for bound in ("pDC <", "pHD >")]
    counted = ["cases looked at", "OoD before", "OoD at the end", "refinement epochs"]
    header = ["segmenter, view", *columns, *counted]
    best = "the best of all evaluations so far" if results["preset"] == "original" else "every candidate"
    caption = f"Out of distribution: {best} is beyond a threshold"
    return Table(caption, header, rows) if rows else None


def _upper(limits: Mapping[str, Any]) -> str:
    unit = "voxels" if "up_voxels" in limits else "mm"
    text = number(limits.get(f"up_{unit}"), 1)
    return text if text == DASH else f"{text}{NBSP}{unit}"


def clinical_tables(results: Results, segmenter: str) -> list[Table]:
    """Errors of ejection fractions and volumes at every stage."""
    ef_rows, volume_rows = [], []
    for stage, cell in results["clinical"].get(segmenter, {}).items():
        for key in ("lv", "rv"):
            error = cell["ef"][key]
            if error["n"]:
                ef_rows.append(
                    [f"{key.upper()}, {STAGE_WORDS[stage]}", number(error["mae_points"], 1),
                     number(error["bias_points"], 1), str(error["n"])]
                )  # fmt: skip
        for key in STRUCTURES:
            for phase, error in cell["volume"][key].items():
                if error["n"] and stage == last_stage(results["clinical"][segmenter]):
                    volume_rows.append(
                        [f"{key.upper()}, {phase}", number(error["mae_ml"], 1), number(error["bias_ml"], 1),
                         str(error["n"])]
                    )  # fmt: skip
    tables = []
    if ef_rows:
        header = ["ventricle, stage", "mean absolute error", "bias", "n"]
        tables.append(Table("Ejection fraction (percentage points)", header, ef_rows))
    if volume_rows:
        header = ["structure, phase", "mean absolute error", "bias", "n"]
        tables.append(Table("Volumes (ml), last stage", header, volume_rows))
    return tables


def published_table(results: Results, segmenter: str) -> Table | None:
    """The authors' notebook beside this run's validation part, and the average of the refinement paper."""
    rows = []
    for view, stages in published.NOTEBOOK_VALIDATION.items():
        ours = results["ablation"][segmenter].get(view, {})
        for stage, (dc, hd) in stages.items():
            cell = ours.get(stage, {}).get("by_part", {}).get("validation")
            texts = [mean_sd(cell["dc"], "dc"), mean_sd(cell["hd"], "hd")] if cell else [DASH, DASH]
            rows.append([f"{view}, {STAGE_WORDS[stage]}, validation", *texts, f"{dc:.4f}", f"{hd:.2f}"])
    averages = results["average"][segmenter]
    ours = averages[last_stage(averages)] if averages else {"dc": None, "hd": None}
    part = results["scored_part"] or "no truth"
    rows.append(
        [f"AVG, full method (ours: {part})", number(ours["dc"], 3), average_hd(ours),
         f"{published.AVERAGE_DC:.3f}", f"{published.AVERAGE_HD_MM:.2f}"]
    )  # fmt: skip
    header = ["view, stage, part", "DC, ours", "HD, ours (mm)", "DC, published", "HD, published"]
    return Table(f"{segmenter}: published numbers beside ours", header, rows)


def failure_tables(results: Results) -> list[dict[str, Any]]:
    """Per segmenter and view: the right ventricle's table, and those of the other structures."""
    shown = []
    for segmenter, views in (results.get("failures") or {}).items():
        for view in (view for view in VIEWS if view in views):
            tables = {
                s.key: measure_table(f"{segmenter}, {view}: {s.name}", views[view][s.key], REFERENCE)
                for s in CARDIAC
            }
            first = tables.pop("rv")
            shown.append({"first": first, "others": [table for table in tables.values() if table]})
    return shown
