"""Synthetic cohorts: a parametric beating heart in a chest, scanned by invented scanners.

`fields` shapes and textures, `heart` and `torso` anatomy, `tissue` signal, `patient` diseases, `scanner` acquisition,
`planes` slice positions, `cohort` subjects, `write` files.
"""

from qcjax.data.phantom.cohort import PhantomImage, PhantomSubject, make_subject
from qcjax.data.phantom.write import PhantomConfig, write_mnms2

__all__ = ["PhantomConfig", "PhantomImage", "PhantomSubject", "make_subject", "write_mnms2"]
