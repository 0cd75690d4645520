"""Synthetic cohorts: a parametric beating heart in a chest, scanned by invented scanners.

`fields` shapes and textures, `heart` and `torso` anatomy, `tissue` signal, `patient` diseases, `scanner` acquisition,
`planes` slice positions, `cohort` subjects, `write` files in M&Ms-2's layout, `acdc` cohorts in ACDC's; `lge_scar`
infarctions, `lge_scan` late gadolinium enhancement, `lge` cohorts in EMIDEC's layout.
"""

from qcjax.phantom.acdc import AcdcPhantomConfig, write_acdc
from qcjax.phantom.cohort import PhantomImage, PhantomSubject, make_subject
from qcjax.phantom.lge import LgePhantomConfig, LgeSubject, make_lge_subject, write_emidec
from qcjax.phantom.write import PhantomConfig, write_mnms2

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
