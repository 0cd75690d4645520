"""The M&Ms-2 data set: find its subjects, split them, describe them, write predictions in its layout.

Two layouts are read, compressed or not: the public release (a folder per subject, and
``dataset_information.csv``) and that of the 2021 challenge (all files in one folder, and
``MNM2_vendor_information_training_set.csv``).
"""

import csv
import gzip
import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from qcjax.data.datasets.listing import Scan, aligned, counted, left_out_findings, read_text, some
from qcjax.data.files import LeftOut, stem_of, walk
from qcjax.data.findings import Finding, InvalidFile
from qcjax.data.subject import PARTS, PHASES, VIEWS, Case, Subject, Volume
from qcjax.data.write import encode_labels
from qcjax.labels import RV
from qcjax.runtime.files import write_whole

DISEASES = ("NOR", "LV", "HCM", "ARR", "FALL", "CIA", "RV", "TRI")
VENDORS = ("SIEMENS", "PHILIPS", "GE")  # the first word of the VENDOR column, in capitals
INFORMATION = "dataset_information.csv"
VENDOR_INFORMATION = "MNM2_vendor_information_training_set.csv"
LAST_CODES = {"train": 160, "validation": 200, "test": 360}  # of the official split

_DEPTH = 4  # folders below the given one: MnM2/dataset/001/
_FILE = re.compile(r"(\d+)_(SA|LA)_(ED|ES|CINE)(_gt)?")
_LAYOUT = "files named like 001_SA_ED.nii.gz, in the folder or in dataset/001/"


def find(folder: Path, split: Path | None = None) -> list[Subject]:
    """The subjects in a folder of either layout, by code; no image is read.

    Args:
      folder: the one that holds the files or the csv, or one above.
      split: a csv for `read_split`, in place of the official split by code.

    Raises:
      ValueError: no files of M&Ms-2; a csv that can't be understood; a split that lacks subjects.
    """
    return scan(folder, split).sound()


def scan(folder: Path, split: Path | None = None) -> Scan:
    """As `find`, but with whatever is wrong as findings instead of exceptions."""
    folder = Path(folder)
    findings: list[Finding] = []
    files: dict[str, dict[str, Path]] = {}
    tables: dict[str, list[Path]] = {INFORMATION: [], VENDOR_INFORMATION: []}
    left_out = LeftOut()
    for path in (p / n for p, _, names in walk(folder, left_out, _DEPTH) for n in names):
        if path.name in tables:
            tables[path.name].append(path)
        elif match := _FILE.fullmatch(stem_of(path.name) or ""):
            code = f"{int(match[1]):03d}"
            key = f"{match[2]}_{match[3]}{match[4] or ''}"
            other = files.setdefault(code, {}).setdefault(key, path)
            if other != path:
                found = f"the same volume of the same subject also as {other}"
                findings.append(Finding("error", path, found, "each subject once", code))
    findings += left_out_findings(folder, left_out)
    if not files:
        found = "no such folder" if not folder.is_dir() else "no images of M&Ms-2"
        return Scan([], [Finding("error", folder, found, _LAYOUT)], None)
    files_of_0 = files.pop("000", None)
    if files_of_0:
        findings.append(Finding("error", min(files_of_0.values()), "subject code 0", "codes from 1", "000"))

    parts: dict[str, str] = {}
    information: dict[str, dict[str, str]] = {}
    table = next(iter(tables[INFORMATION] + tables[VENDOR_INFORMATION]), None)
    for found_tables in tables.values():
        for extra in found_tables[1:]:
            findings.append(
                Finding("error", extra, f"a second table beside {found_tables[0]}", "one data set")
            )
    try:
        if table is not None:
            information = _read_information(table)
    except InvalidFile as error:
        findings.append(error.finding())
    try:
        if split is not None:
            parts = read_split(split)
            lacking = sorted(set(files) - set(parts))
            if lacking:
                raise InvalidFile(Path(split), f"no PART for {some(lacking)}", f"all {len(files)} subjects")
            unknown = sorted(set(parts) - set(files))
            if unknown:
                found = f"a PART for {some(unknown)}, {len(unknown)} in all, without files"
                findings.append(Finding("warning", Path(split), found, "the subjects in the folder"))
    except InvalidFile as error:
        findings.append(error.finding())

    absent = sorted(set(information) - set(files))
    if table is not None and absent:
        findings.append(
            Finding("warning", table, f"no files of {some(absent)}, {len(absent)} in all", _LAYOUT)
        )
    subjects = []
    for code in sorted(files, key=int):
        row = information.get(code, {})
        part = parts.get(code) or official_part(code)
        if code not in parts and int(code) > LAST_CODES["test"]:
            expected = f"codes 1 to {LAST_CODES['test']} (taken as part of the test set)"
            findings.append(
                Finding("warning", min(files[code].values()), f"subject code {code}", expected, code)
            )
        for key in sorted(files[code]):
            if key.endswith("_gt") and key.removesuffix("_gt") not in files[code]:
                findings.append(Finding("error", files[code][key], "a mask without its image", "both", code))
        subjects.append(_subject(code, row, part, files[code]))
    return Scan(subjects, findings, table)


def official_part(code: str) -> str:
    """The official split: codes 1-160 train, 161-200 validation, from 201 on test."""
    return next((part for part, last in LAST_CODES.items() if int(code) <= last), "test")


def read_split(path: Path) -> dict[str, str]:
    """A csv with the columns SUBJECT_CODE and PART -> part ("train", "validation", "test") by code.

    Raises:
      InvalidFile: a column is missing, an unknown part, a subject in two parts.
    """
    path = Path(path)
    parts: dict[str, str] = {}
    for code, row in _rows(path, ("SUBJECT_CODE", "PART")):
        part = row["PART"].lower()
        if part not in PARTS:
            raise InvalidFile(path, f"PART {row['PART']!r} for subject {code}", f"one of {', '.join(PARTS)}")
        if parts.setdefault(code, part) != part:
            raise InvalidFile(
                path, f"subject {code} in {parts[code]} and in {part}", "each subject in one part"
            )
    if not parts:
        raise InvalidFile(path, "no rows", "a row per subject")
    return parts


def training_split(
    subjects: Sequence[Subject], seed: int, fraction: float = 0.2
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labelled training subjects, by patient, in two: (codes of D_tr, codes of D_val), sorted.

    `fraction` of them (at least one) is D_val, which chooses models (refinement paper, Galati & Zuluaga,
    STACOM 2021); the same seed and subjects give the same split.

    Raises:
      ValueError: fewer than two labelled training subjects, or a fraction outside of (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: found {fraction}; expected a number between 0 and 1")
    labelled = (s for s in subjects if s.part == "train" and any(c.label_path for c in s.cases))
    codes = sorted(s.code for s in labelled)
    if len(codes) < 2:
        raise ValueError(
            f"found {len(codes)} labelled training subjects; expected at least 2, to train and to validate"
        )
    count = min(max(1, round(fraction * len(codes))), len(codes) - 1)
    chosen = {codes[i] for i in np.random.default_rng(seed).permutation(len(codes))[:count]}
    return tuple(c for c in codes if c not in chosen), tuple(c for c in codes if c in chosen)


def describe(subjects: Sequence[Subject]) -> str:
    """What was found, as a table for people: per part the subjects, cases, diseases and vendors."""
    rows = [("part", "subjects", *(f"{v} cases (with truth)" for v in VIEWS), "diseases", "vendors")]
    for part in PARTS:
        group = [s for s in subjects if s.part == part]
        if not group:
            continue
        cells = [part, str(len(group))]
        for view in VIEWS:
            cases = [c for s in group for c in s.cases if c.view == view]
            cells.append(f"{len(cases)} ({sum(c.label_path is not None for c in cases)})")
        cells += [counted(s.disease for s in group), counted(s.vendor for s in group)]
        rows.append(tuple(cells))
    lines = aligned(rows)
    for view in VIEWS:
        if subjects and not any(c.view == view for s in subjects for c in s.cases):
            lines.append(f"There is no {view} view.")
    if not any(s.cine for s in subjects):
        lines.append("There are no CINE files (none are needed).")
    for part in PARTS:
        blind = sum(not any(c.label_path for c in s.cases) for s in subjects if s.part == part)
        if blind:
            lines.append(f"{part}: {blind} subjects without ground truth.")
    return "\n".join(lines)


def write_submission(
    predictions: Iterable[tuple[Case, Integer[np.ndarray, "_ _ _"], Volume]], out_zip: Path
) -> Path:
    """Write the challenge's zip, ``submission/<id>/<id>_<view>_<phase>_pred.nii.gz``, with the RV as 1.

    Args:
      predictions: (case, labels (x, y, slices) with qcjax's values, the case's image); the same ones give the
        same bytes, in whatever order.

    Raises:
      ValueError: no predictions, or a case twice.
    """
    entries: dict[str, bytes] = {}
    for case, labels, like in predictions:
        name = f"submission/{case.subject}/{case.name}_pred.nii.gz"
        if name in entries:
            raise ValueError(f"{out_zip}: found two predictions of {case.name}; expected one")
        entries[name] = gzip.compress(encode_labels(labels == RV.id, like), 6, mtime=0)
    if not entries:
        raise ValueError(f"{out_zip}: found no predictions; expected at least one")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in sorted(entries):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, entries[name])
    out_zip = Path(out_zip)
    write_whole(out_zip, content.getvalue())
    return out_zip


def _subject(code: str, row: Mapping[str, str], part: str, files: Mapping[str, Path]) -> Subject:
    cases = tuple(
        Case(code, view, phase, files[f"{view}_{phase}"], files.get(f"{view}_{phase}_gt"))
        for view in VIEWS
        for phase in PHASES
        if f"{view}_{phase}" in files
    )
    cine = {view: files[f"{view}_CINE"] for view in VIEWS if f"{view}_CINE" in files}
    return Subject(code, row.get("DISEASE", ""), row.get("VENDOR", ""), part, cases, cine)


def _read_information(path: Path) -> dict[str, dict[str, str]]:
    columns = (
        ("SUBJECT_CODE", "DISEASE", "VENDOR") if path.name == INFORMATION else ("SUBJECT_CODE", "VENDOR")
    )
    information: dict[str, dict[str, str]] = {}
    for code, row in _rows(path, columns):
        if information.setdefault(code, row) != row:
            raise InvalidFile(path, f"two different rows for subject {code}", "one row per subject")
    return information


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(code, those columns) of each row that isn't blank."""
    text = read_text(path, "a csv")
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=None), delimiter=delimiter))
    except csv.Error as error:
        raise InvalidFile(path, f"no table ({error})", "a csv") from None
    header = [name.strip().upper() for name in lines[0]] if lines else []
    lacking = [c for c in columns if c not in header]
    if lacking:
        raise InvalidFile(path, f"columns {header}", f"also the columns {', '.join(lacking)}")
    for number, line in enumerate(lines[1:], start=2):
        values = dict(zip(header, (cell.strip() for cell in line), strict=False))
        if not any(values.values()):
            continue
        code = re.fullmatch(r"(\d+)(\.0*)?", values.get(columns[0], ""))  # spreadsheets write 1.0
        if code is None or int(code[1]) == 0:
            raise InvalidFile(
                path, f"{columns[0]} {values.get(columns[0], '')!r} in line {number}", "a whole number"
            )
        yield f"{int(code[1]):03d}", {name: values.get(name, "") for name in columns[1:]}
