"""Numbers that others published for the same method, to stand beside ours.

All are for the right ventricle: Dice coefficient (DC) and Hausdorff distance (HD).
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
