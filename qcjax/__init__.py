"""qcjax: quality-controlled cardiac MR segmentation in JAX."""

__version__ = "0.1.0"
