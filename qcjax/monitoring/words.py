"""The sentences of the monitoring report: what was found, said no stronger than the intervals allow."""

from collections.abc import Mapping
from typing import Any

from qcjax.monitoring.figures import MEASURE_TEXTS, damage_name, scope_of, unit_of
from qcjax.monitoring.tables import LOSS_NAMES, MEASURE_NAMES, scope_words
from qcjax.report.table import number, with_interval

Results = Mapping[str, Any]
MUST_BE_FOUND = 0.95  # of the area under the ROC curve: below it a damage is named as hard to find


def findings(results: Results) -> list[str]:
    """The headline in sentences."""
    scope = scope_of(results, "ours")
    sentences = []
    if scope is None:
        flagged = results["flagged"]["all"]
        sentences.append(
            "There is no ground truth: nothing could be compared with it, the flags are all there is. Of "
            f"{flagged['n']} masks {flagged['erroneous']} are flagged as erroneous and {flagged['suspicious']} as "
            "suspicious."
        )
    else:
        sentences += _correlations(results, scope)
        sentences += _ranking(results, scope)
        sentences.append(_flags(results))
        sentences += _risk(scope)
        sentences += _rca(results)
    untouched = results.get("false_alarms_untouched")
    if untouched and untouched["n"]:
        share = 100 * untouched["flagged"] / untouched["n"]
        sentences.append(
            f"Untouched ground-truth masks: {untouched['flagged']} of {untouched['n']} are flagged "
            f"({number(share, 1)} %)"
            + (f"; the image leaves {untouched['image']} in doubt." if "image" in untouched else ".")
        )
    sentences += _damage(results.get("damage") or {})
    seconds = (results.get("seconds") or {}).get("per_case")
    if seconds is not None:
        rca = (results.get("seconds") or {}).get("rca_per_case")
        beside = f"; RCA of all the masks of an image took {rca:,.3g} s" if rca is not None else ""
        sentences.append(f"Judging a mask took {seconds:.3g} s{beside} (published: 0.2 s and 20 min).")
    return sentences


def _correlations(results: Results, scope: Mapping[str, Any]) -> list[str]:
    sentences = []
    for measure, label in MEASURE_NAMES.items():
        cells = {key: scope["correlation"]["ours"][key][measure] for key in results["structures"]}
        counted = "; ".join(
            f"{key.upper()} {with_interval(c['counted'], 'r', 3)}" for key, c in cells.items()
        )
        dropped = ", ".join(number(c["dropped"]["r"], 3) for c in cells.values())
        n = sum(c["counted"]["n"] for c in cells.values())
        sentences.append(
            f"Pearson’s r of pseudo and real {label}, failures counted in: {counted} ({n} structures of "
            f"{scope_words('all', scope)}). With failures dropped, as in the paper: {dropped}."
        )
    return sentences


def _ranking(results: Results, scope: Mapping[str, Any]) -> list[str]:
    n_methods = len(results["methods"])
    if n_methods < 2:
        return ["One method alone: there is no ranking to reproduce."]
    told = []
    for policy, words in (("counted", "failures counted in"), ("dropped", "failures dropped")):
        values = [
            cell["r_s"]["ours"]["r"]
            for cells in scope["ranking"][policy].values()
            for cell in cells.values()
            if cell["r_s"]["ours"]["r"] is not None
        ]
        if values:
            perfect = sum(value > 1 - 1e-9 for value in values)
            lowest = number(min(values), 2)
            told.append(f"{words}, {perfect} of {len(values)} times (lowest r_s {lowest})")
    text = (
        f"Ranking the {n_methods} methods by mean pHD gives their order by mean HD (r_s 1), per structure and "
        f"phase: {'; '.join(told)}."
    )
    return [text] if told else []


def _flags(results: Results) -> str:
    counts = results["flags"]["case"]["failed"]["all"]
    caught = counts["caught_erroneous"] + counts["caught_suspicious"]
    good = counts["n"] - counts["failures"]
    return (
        f"Flags: of {counts['failures']} failed masks (a structure absent or DC below {results['failure_dc']:g}) "
        f"{caught} are caught, {counts['caught_erroneous']} as erroneous and {counts['caught_suspicious']} as "
        f"suspicious; {counts['missed']} are missed. Of the {good} others {counts['false_alarms']} are flagged."
    )


def _risk(scope: Mapping[str, Any]) -> list[str]:
    risk = scope["risk"]
    if not risk or "pdc" not in risk["measures"]:
        return []
    sentences = []
    for loss, words in LOSS_NAMES.items():
        cells = risk[loss]["measures"]
        groups: dict[str, list[str]] = {"worse": [], "better": [], "not shown to differ": []}
        for name in risk["measures"]:
            difference = cells[name].get("difference")
            if difference and difference["low"] is not None:
                apart = not difference["low"] <= 0 <= difference["high"]
                verdict = (
                    ("worse" if difference["mean"] > 0 else "better") if apart else "not shown to differ"
                )
                groups[verdict].append(f"{MEASURE_TEXTS[name][0]} {cells[name]['aurc']:.3f}")
        told = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in groups.items() if names)
        sentences.append(
            f"Risk-coverage, {words}: AURC of pDC {with_interval(cells['pdc'], 'aurc', 3)}, ideal "
            f"{risk[loss]['ideal']:.3f}, without selection {risk[loss]['mean_loss']:.3f}."
            + (f" Against pDC {told}." if told else "")
        )
    return sentences


def _rca(results: Results) -> list[str]:
    scope = scope_of(results, "rca")
    if scope is None:
        return []
    told = [
        f"{label} {key.upper()} {number(scope['correlation']['ours'][key][measure]['counted']['r'], 2)} against "
        f"{number(scope['correlation']['rca'][key][measure]['counted']['r'], 2)}"
        for measure, label in MEASURE_NAMES.items()
        for key in results["structures"]
    ]
    return [f"Ours against RCA, r on the same {scope_words('rca', scope)}: {'; '.join(told)}."]


def _damage(damage: Mapping[str, Mapping[str, Any]]) -> list[str]:
    areas = {key: cell["auc"] for key, cell in damage.items() if cell.get("auc") is not None}
    if not areas:
        return []
    hard = [
        f"{damage_name(key)} {area:.2f}" + _with_image(damage[key])
        for key, area in areas.items()
        if area < MUST_BE_FOUND
    ]
    text = (
        f"Damaged ground-truth masks: the area under the ROC curve is at least {MUST_BE_FOUND} for "
        f"{len(areas) - len(hard)} of {len(areas)} kinds of damage"
    )
    return [f"{text}; below it: {', '.join(hard)}." if hard else f"{text}."]


def _with_image(cell: Mapping[str, Any]) -> str:
    return f" ({cell['auc_with_image']:.2f} with the image)" if cell.get("auc_with_image") is not None else ""


def what_differs(results: Results) -> str:
    """Why published numbers and ours may differ."""
    n = results["n"]
    return (
        "What differs: the published numbers are for six methods of the ACDC challenge on its 50 test subjects, scored "
        "by the challenge’s platform, the autoencoder trained for 500 epochs on 80 subjects, and failures dropped "
        f"from the correlations. Ours are for {len(results['methods'])} methods ({', '.join(results['methods'])}) on "
        f"{n['subjects']} subjects, with the preset “{results.get('preset') or 'not recorded'}” and the data under "
        "“What ran”; failures are counted in, and beside it dropped. A correlation also depends on how far apart in "
        "quality the masks are: methods that fail more often make it larger."
    )


def scales(results: Results) -> str:
    """Which masks the scales of the measures without truth come from."""
    n = (results.get("monitor") or {}).get("reference_masks")
    return (
        f"The scale of the suspicion comes from {n or 'the'} validation masks, the loss on which chose the "
        "autoencoder’s epoch, too. The scale of the image’s doubt and the limits of the anatomical rules come from the "
        "ground truth of every other one of ACDC’s 100 training subjects: where these are split anew, some of them are "
        "among the test subjects, and doubt and rules may look a little better than they are."
    )


def policy(results: Results) -> str:
    """How failures without a distance are counted, with the numbers of this run."""
    told = [
        f"{_COLUMN_WORDS[column]} {number(value, 1)} {unit_of(results)}"
        for column, value in ((results["scopes"].get("all") or {}).get("worst") or {}).items()
        if value is not None
    ]
    return (
        "Failures counted in: the DC of an absent structure is 0 and stays. Its distance is undefined; in its place "
        "stands the worst finite one of its column over all methods and structures"
        + (f" ({', '.join(told)})" if told else "")
        + ". Dropped, as in the authors’ code: of correlations, whole masks that have a value of 0 or an undefined one "
        "in any structure; of rankings, pairs of distances."
        + (" Distances are in voxels, as in the authors’ code." if unit_of(results) == "voxels" else "")
    )


_COLUMN_WORDS = {"hd": "HD", "phd": "pHD", "rca_hd": "HD by RCA"}
