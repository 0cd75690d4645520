"""Synthetic cohorts: a parametric beating heart in a chest, scanned by invented scanners.

`fields` shapes and textures, `heart` and `torso` anatomy, `tissue` signal, `patient` diseases, `scanner` acquisition,
`planes` slice positions, `cohort` subjects; `lge_scar` infarctions, `lge_scan` late gadolinium enhancement. `write`
puts cohorts on disk, in the layouts of M&Ms-2 (`mnms2`), ACDC (`acdc`) and EMIDEC (`lge`).
"""

from qcjax.phantom.acdc import AcdcPhantomConfig, write_acdc
from qcjax.phantom.cohort import PhantomImage, PhantomSubject, make_subject
from qcjax.phantom.lge import LgePhantomConfig, LgeSubject, make_lge_subject, write_emidec
from qcjax.phantom.mnms2 import PhantomConfig, write_mnms2

__all__ = [
    "AcdcPhantomConfig",
    "LgePhantomConfig",
    "LgeSubject",
    "PhantomConfig",
    "PhantomImage",
    "PhantomSubject",
    "make_lge_subject",
    "make_subject",
    "write_acdc",
    "write_emidec",
    "write_mnms2",
]
