"""Where a secret that was typed is read from, and what is said when there is none."""

from __future__ import annotations

import pytest

from swarm.commands.context import read_secret


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "--token is empty; give it as --token -, @FILE or SWARM_TOKEN"),
        ("@/nowhere", "--token @/nowhere: No such file"),
    ],
)
def test_a_secret_that_is_not_there_is_wrong_usage(text: str, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_secret(text, "SWARM_TOKEN", "--token")
    assert ended.value.code == 2
    assert says in capfd.readouterr().err
