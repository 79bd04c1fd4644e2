"""Image references: what may stand after `--image`. `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`, or an image's id.

The grammar is the one of registries and engines (the "distribution" reference grammar), checked when a service is written, so
that a typing error is told to the person who makes it and not to every node that would pull it.
"""

from __future__ import annotations

import re

NAME_LENGTH_MAX = 255
"""Host and path together; the limit of registries."""

_HOST_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")
_PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}\Z")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}\Z")


def image_problem(image: str) -> str | None:
    """What is wrong with an image reference, with what a right one looks like; None for a right one."""
    why = _why(image)
    return (
        None if why is None else f"image {image!r} is not an image reference: {why}; write NAME[:TAG], as in nginx:1.27"
    )


def _why(image: str) -> str | None:
    if _ID.match(image):
        return None
    if not image:
        return "it is empty"
    if any(character.isspace() for character in image):
        return "there is a blank in it"
    if "://" in image:
        return f"it begins with {image.partition('://')[0]}://, as an address does"
    rest, at, digest = image.partition("@")
    if at and not _DIGEST.match(digest):
        return f"{digest!r} is not a digest (sha256: and 64 hexadecimal digits)"
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # the colon of a port
        name = rest
    elif not _TAG.match(tag):
        return (
            f"{tag!r} is not a tag (letters, digits, '_', '.', '-'; at most 128)" if tag else "no tag follows the colon"
        )
    return _why_not_name(name)


def _why_not_name(name: str) -> str | None:
    if len(name) > NAME_LENGTH_MAX:
        return f"its name has {len(name)} characters; {NAME_LENGTH_MAX} are allowed"
    first, slash, others = name.partition("/")
    has_host = bool(slash) and (first == "localhost" or any(mark in first for mark in ".:") or first != first.lower())
    if has_host and not _HOST.match(first):
        return f"{first!r} is not a registry's HOST[:PORT]"
    for part in (others if has_host else name).split("/"):
        if not part:
            return "a part of its name is empty"
        if part != part.lower():
            return f"{part!r} has upper-case letters; the name of an image has none"
        if not _PART.match(part):
            return f"{part!r} is not allowed (small letters, digits, and single '.', '_', '-' between them)"
    return None
