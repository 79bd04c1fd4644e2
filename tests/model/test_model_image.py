"""Which image references are right, and what is said of wrong ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.model.image import image_problem

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:1.27",
        "library/nginx:1.27-alpine",
        "quay.io/org/team/app:v1",
        "localhost/app",
        "localhost:5000/app",
        "registry.example.com:5000/a/b:T_1",
        "[::1]:5000/app:1",
        "127.0.0.1:5000/app",
        f"app@sha256:{HEX}",
        f"app:1@sha256:{HEX}",
        f"sha256:{HEX}",
        HEX,
        "a__b/c--d/e.f",
        "UPPER.example.com/app",
        "swarm-test-busybox:latest",
    ],
)
def test_right_references(image: str) -> None:
    assert image_problem(image) is None


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("", "empty"),
        (" nginx", "blank"),
        ("nginx 1", "blank"),
        ("nginx\n", "blank"),
        ("Nginx", "upper-case"),
        ("library/Nginx:1", "upper-case"),
        ("nginx:", "no tag"),
        ("nginx:a:b", "'nginx:a'"),
        ("nginx:-x", "not a tag"),
        ("nginx:" + "x" * 129, "not a tag"),
        ("nginx@sha256:12", "not a digest"),
        ("nginx@", "not a digest"),
        ("https://example.com/nginx", "https://"),
        ("a//b", "empty"),
        ("/nginx", "empty"),
        ("nginx/", "empty"),
        ("a___b", "not allowed"),
        ("a..b", "not allowed"),
        ("-a", "not allowed"),
        ("$(id)", "not allowed"),
        ("{{.Node.Hostname}}", "upper-case"),
        ("a_b.c:5000/x", "HOST"),
        ("x" * 256, "255"),
    ],
)
def test_a_wrong_reference_is_told_what_is_wrong(image: str, words: str) -> None:
    problem = image_problem(image)
    assert problem is not None
    assert words in problem and "nginx:1.27" in problem


@given(st.text(max_size=40))
def test_whatever_is_typed_gets_an_answer_and_what_passes_can_be_printed(text: str) -> None:
    if image_problem(text) is None:
        assert text.isascii() and text.isprintable() and " " not in text
