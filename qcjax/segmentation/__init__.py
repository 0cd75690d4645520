"""A segmenter for anybody's images: trained by `qcjax train`, used by `qcjax segment`."""
