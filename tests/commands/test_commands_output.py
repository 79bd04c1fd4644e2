"""Tables fit a terminal as far as that loses little."""

from __future__ import annotations

from swarm.commands.output import fitted

TABLE = [
    ("ID", "NAME", "RUNS", "ERROR", "PORTS"),
    ("abcdefghijkl", "web.1", "python3 -m http.server 8080", "", ""),
    ("mnopqrstuvwx", "web.2", "nginx", "", ""),
]


def width(table: list[tuple[str, ...]]) -> int:
    return max(len("  ".join(row)) for row in table)


def test_a_table_that_fits_stays_as_it_is() -> None:
    assert fitted(TABLE, 80) == TABLE


def test_columns_without_an_entry_go_first() -> None:
    assert fitted(TABLE, 50) == [row[:3] for row in TABLE]


def test_what_runs_is_shortened_then() -> None:
    shown = fitted(TABLE, 40)
    assert shown[1] == ("abcdefghijkl", "web.1", "python3 -m http....")
    assert shown[2] == ("mnopqrstuvwx", "web.2", "nginx")
    assert fitted(TABLE, 10)[1][2] == "python3 -..."


def test_an_error_is_read_to_its_end() -> None:
    failed = [*TABLE, ("yz", "web.3", "nginx", "task: non-zero exit (1)" * 3, "")]
    assert fitted(failed, 40)[3][3] == "task: non-zero exit (1)" * 3


def test_a_table_without_rows_keeps_its_header() -> None:
    assert fitted(TABLE[:1], 10) == TABLE[:1]
