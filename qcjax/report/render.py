"""One look and one way to render for every page: templates, filters, and how a page is written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from qcjax.report import table
from qcjax.runtime.files import write_whole


def write_page(path: Path, template: str, context: Mapping[str, Any]) -> Path:
    """Render a template of this package; a page that exists is replaced.

    Returns:
      `path`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("qcjax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"cell_class": _cell_class, "tag_class": _tag_class}
    text = environment.get_template(template).render(context).strip() + "\n"
    write_whole(path, text.encode("utf-8", errors="replace"))  # a file's name may be no valid text
    return path


def _cell_class(cell: str) -> str:
    """The class of a cell by the judgement that ends it, for its colour."""
    judgement = cell.rsplit("\n", 1)[-1]
    return {"better": "better", "worse": "worse", table.NO_DIFFERENCE: "neutral"}.get(judgement, "")


def _tag_class(tag: str) -> str:
    return tag if tag in ("erroneous", "suspicious") else "ood"
