"""Numbers that others published for the same method, to stand beside ours.

Dice coefficient (DC) and Hausdorff distance (HD); those of the refinement paper are for the right ventricle.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class MeanSd:
    """A published mean and standard deviation."""

    mean: float
    sd: float


@dataclass(frozen=True)
class ByDisease:
    """One row of Table 1 of the refinement paper; HD in mm."""

    name: str
    sa_dc: MeanSd
    sa_hd_mm: MeanSd
    la_dc: MeanSd
    la_hd_mm: MeanSd

    def of(self, view: str) -> tuple[MeanSd, MeanSd]:
        """DC and HD of a view, "SA" or "LA"."""
        return (self.sa_dc, self.sa_hd_mm) if view == "SA" else (self.la_dc, self.la_hd_mm)


def _row(name: str, *numbers: float) -> ByDisease:
    pairs = [MeanSd(mean, sd) for mean, sd in zip(numbers[::2], numbers[1::2], strict=True)]
    return ByDisease(name, *pairs)


# refinement paper (Galati & Zuluaga, STACOM 2021), Table 1: the full framework, by the codes of M&Ms-2
BY_DISEASE = {
    "NOR": _row("Normal", 0.902, 0.064, 10.89, 5.16, 0.918, 0.062, 7.05, 6.34),
    "FALL": _row("Tetralogy of Fallot", 0.899, 0.065, 12.80, 6.22, 0.916, 0.038, 8.33, 4.67),
    "CIA": _row("Interatrial communication", 0.869, 0.137, 12.09, 4.98, 0.912, 0.083, 8.03, 7.48),
    "ARR": _row("Congenital arrhythmogenesis", 0.911, 0.069, 12.70, 10.1, 0.929, 0.029, 5.60, 1.72),
    "HCM": _row("Hypertrophic cardiomyopathy", 0.908, 0.083, 10.67, 5.91, 0.916, 0.058, 6.30, 3.30),
    "LV": _row("Dilated left ventricle", 0.897, 0.077, 11.99, 6.53, 0.906, 0.053, 8.13, 9.30),
    "TRI": _row("Tricuspidal regurgitation", 0.909, 0.051, 12.10, 8.08, 0.910, 0.041, 6.06, 2.98),
    "RV": _row("Dilated right ventricle", 0.913, 0.045, 10.83, 4.82, 0.881, 0.062, 9.68, 6.58),
}
UNSEEN_DISEASES = ("TRI", "RV")  # left out of the labelled training set by the challenge

# the same paper's abstract: 0.75 SA + 0.25 LA
AVERAGE_DC = 0.905
AVERAGE_HD_MM = 10.472

# the authors' notebook, segmenter nnunet, the 40 subjects of the validation part: view -> stage -> (DC, HD)
NOTEBOOK_VALIDATION = {
    "SA": {"segmenter": (0.9037, 13.35), "selection": (0.8980, 12.19), "refined": (0.9008, 12.27)},
    "LA": {"segmenter": (0.8997, 7.40), "selection": (0.9043, 7.52), "refined": (0.8992, 7.02)},
}

# the same notebook: supervised training, SA, validation RV Dice after so many epochs
NOTEBOOK_SA_DICE_BY_EPOCH = {10: 0.835, 50: 0.887, 100: 0.897, 200: 0.914}

# monitoring paper (Galati & Zuluaga, FIMH 2021), Fig. 3: Pearson r, pairs with a value of 0 or NaN dropped
MONITORING_R = {
    "dc": {"lv": 0.715, "myo": 0.770, "rv": 0.915},
    "hd": {"lv": 0.949, "myo": 0.972, "rv": 0.938},
}

# the same paper, Table 1: ACDC's test set; phase -> structure -> method -> mean HD, pHD, pHD by RCA, all in
# mm; RCA failed for Isensee, whom the paper's r_s leaves out
MONITORING_METHODS = ("Bai", "Baumgartner", "Isensee", "Khened", "Tziritas", "Yang")
MONITORING_RANKING: dict[str, dict[str, dict[str, tuple[float, float, float | None]]]] = {
    phase: {key: dict(zip(MONITORING_METHODS, cells, strict=True)) for key, cells in structures.items()}
    for phase, structures in {
        "ED": {
            "lv": ((39.01, 23.38, 15.55), (7.14, 3.87, 9.30), (7.01, 3.88, None), (16.81, 6.39, 10.58),
                   (8.90, 4.69, 8.92), (16.95, 5.29, 12.96)),
            "rv": ((50.21, 31.82, 56.22), (14.00, 7.72, 37.63), (11.40, 7.82, None), (13.25, 6.87, 39.01),
                   (21.02, 9.86, 41.10), (86.08, 47.24, 44.75)),
            "myo": ((47.10, 28.46, 20.42), (9.49, 4.43, 10.52), (8.44, 4.38, None), (16.09, 6.08, 11.22),
                    (12.59, 4.58, 10.65), (31.93, 16.39, 15.12)),
        },
        "ES": {
            "lv": ((50.53, 29.56, 20.01), (10.51, 4.41, 9.56), (7.97, 4.07, None), (20.14, 6.96, 11.72),
                   (11.57, 5.00, 10.46), (19.13, 6.11, 11.78)),
            "rv": ((52.73, 31.40, 53.68), (16.32, 7.10, 35.50), (12.07, 6.99, None), (14.71, 7.07, 35.65),
                   (25.70, 9.61, 36.51), (80.42, 33.21, 40.68)),
            "myo": ((52.72, 31.05, 26.60), (12.47, 4.77, 9.33), (7.95, 4.27, None), (16.77, 6.03, 10.36),
                    (14.78, 5.59, 10.60), (32.54, 16.98, 13.68)),
        },
    }.items()
}  # fmt: skip
MONITORING_R_S = {  # as printed below that table: (ours, RCA)
    "ED": {"lv": (0.90, 0.90), "rv": (1.00, 0.80), "myo": (1.00, 1.00)},
    "ES": {"lv": (1.00, 0.90), "rv": (1.00, 0.80), "myo": (1.00, 0.90)},
}
MONITORING_FLAGS = {"failures": 16, "caught_erroneous": 15, "caught_suspicious": 1, "missed": 0}
MONITORING_SECONDS = {"per_case": 0.2, "rca_per_case": 20 * 60.0}

# that paper's authors' code: Dice of reconstructed ground-truth masks of the validation set; its log counts epochs
# from 0 (9, 100 and 492), here they count from 1, as ours do
MONITORING_RECONSTRUCTION = {
    10: {"lv": 0.70, "myo": 0.26, "rv": 0.54},
    101: {"lv": 0.87, "myo": 0.73, "rv": 0.81},
    493: {"lv": 0.908, "myo": 0.817, "rv": 0.870},
}

ACDC_CITATION = (
    "Bernard O, Lalande A, Zotti C, et al. Deep Learning Techniques for Automatic MRI Cardiac "
    "Multi-Structures Segmentation and Diagnosis: Is the Problem Solved? IEEE Transactions on Medical Imaging "
    "37(11), 2018, pp. 2514–2525. doi:10.1109/TMI.2018.2837502 (the ACDC data and challenge)"
)
RCA_CITATION = (
    "Valindria VV, Lavdas I, Bai W, et al. Reverse Classification Accuracy: Predicting Segmentation Performance "
    "in the Absence of Ground Truth. IEEE Transactions on Medical Imaging 36(8), 2017, pp. 1597–1606. "
    "doi:10.1109/TMI.2017.2665165 (RCA)"
)

CITATIONS = (
    "Galati F, Zuluaga MA. Using Out-of-Distribution Detection for Model Refinement in Cardiac Image "
    "Segmentation. STACOM 2021, LNCS 13131, "
    "pp. 374–382. doi:10.1007/978-3-030-93722-5_40 (the refinement paper)",
    "Galati F, Zuluaga MA. Efficient Model Monitoring for Quality Control in Cardiac Image Segmentation. "
    "FIMH 2021, LNCS 12738, pp. 101–111. doi:10.1007/978-3-030-78710-3_11 (the monitoring paper)",
    "Martín-Isla C, Campello VM, Izquierdo C, et al. Deep Learning Segmentation of the Right Ventricle in "
    "Cardiac MRI: The M&Ms Challenge. "
    "IEEE Journal of Biomedical and Health Informatics 27(7), 2023, pp. 3302–3313. "
    "doi:10.1109/JBHI.2023.3267857 (the M&Ms-2 data and challenge)",
)
