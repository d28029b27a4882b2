"""The file of `--plans`: TOML with a table for every plan, as deploy/plans.example.toml shows it."""

from __future__ import annotations

import tomllib

from lifecycle.named_file import read_named
from lifecycle.plans import Plan, PlanError, Plans, plans_of


def read_plans(path: str, default: Plan) -> Plans:
    """The plans of a file, over the settings' defaults; "" is no file. Raises PlanError, which names the file."""
    if not path:
        return Plans(default)
    return read_named(
        path, "--plans", lambda text: plans_of(tomllib.loads(text), default), PlanError
    )
