"""`svc inspect`: whatever a flag can set is shown."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.commands.service_fields import spec_fields
from swarm.commands.service_spec import new_spec


@pytest.mark.parametrize(
    ("flags", "field", "text"),
    [
        ({"generic_resource": ["gpu=2", "fpga=1"]}, "Resources", "gpu=2, fpga=1"),
        ({"limit_pids": 9}, "Processes", "at most 9"),
        ({"reserve_cpu": "0.5", "limit_cpu": "2"}, "CPU", "reserved 0.5, at most 2"),
        ({"platform": ["linux/arm64"]}, "Platforms", "linux/arm64"),
        ({"restart_condition": "none"}, "Restart", "never"),
        (
            {
                "restart_condition": "on-failure",
                "restart_max_attempts": 3,
                "restart_window": "1m",
                "restart_delay": "0s",
            },
            "Restart",
            "on-failure, after 0 s, at most 3 times within 60 s",
        ),
        ({"replace_after": "2s"}, "Replace", "2 s after its node falls silent"),
        (
            {"update_parallelism": 0, "update_max_failure_ratio": "0.25", "update_delay": "1s"},
            "Updates",
            "all at a time, stop-first, 1 s apart, watched for 5 s, pause on failure of more than 25%",
        ),
        ({"rollback_order": "start-first"}, "Rollbacks", "1 at a time, start-first, watched for 5 s, pause on failure"),
        ({"publish": ["8080:80"]}, "Ports", "8080:80/tcp"),
        ({"stop_signal": "INT", "stop_grace_period": "3s"}, "Stop", "INT, grace 3 s"),
    ],
)
def test_what_a_flag_sets_is_shown(flags: dict[str, Any], field: str, text: str) -> None:
    assert dict(spec_fields(new_spec({"name": "web", **flags}, ["true"])))[field] == text
