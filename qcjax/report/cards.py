"""Pictures and cards of cases within a page."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

MAX_FLAGGED_PICTURES = 12


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it."""

    source: str  # data URI
    caption: str
    alt: str


@dataclass(frozen=True)
class Card:
    """A flagged case: name, flags, what QC measured, and its picture where the files are there."""

    name: str
    tags: Sequence[str]
    text: str
    picture: Picture | None


def draw_card(
    name: str, tags: Sequence[str], text: str, caption: str, draw: Callable[[], Path | None]
) -> Card:
    """A case's card.

    Args:
      draw: draws its picture and says where it is; None where a file that it needs is not there. Where it raises
        ValueError the card tells why: one picture less, not the whole page.
    """
    try:
        drawn = draw()
    except ValueError as error:
        drawn, text = None, f"{text} {error}"
    return Card(name, [tag for tag in tags if tag], text, embed(drawn, caption) if drawn else None)


def opening(*first: tuple[Sequence[Picture], str]) -> list[Picture]:
    """What a page begins with: the first picture of each of these, where there is any, with its sentence."""
    return [replace(pictures[0], caption=text, alt=text) for pictures, text in first if pictures]


def card_pictures(cards: Sequence[Card]) -> list[Picture]:
    """The pictures of the cards that have one."""
    return [card.picture for card in cards if card.picture]


def drawn_pictures(*drawn: tuple[Path | None, str]) -> list[Picture]:
    """The figures that there was something to draw of, embedded, with their captions."""
    return [embed(path, caption) for path, caption in drawn if path]


def embed(path: Path, caption: str) -> Picture:
    """A drawn PNG within the page itself; its caption also tells those who can't see it what it shows."""
    source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    return Picture(source, caption, caption)
