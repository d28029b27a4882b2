"""The file of `--plans`: TOML with a table for every plan, as deploy/plans.example.toml shows it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from lifecycle.plans import Plan, PlanError, Plans, plans_of


def read_plans(path: str, default: Plan) -> Plans:
    """The plans of a file, over the settings' defaults; "" is no file. Raises PlanError, which names the file."""
    if not path:
        return Plans(default)
    try:
        table = tomllib.loads(Path(path).read_text("utf-8"))
        return plans_of(table, default)
    except OSError as error:
        raise PlanError(
            f"{path}: it cannot be read ({(error.strerror or str(error)).lower()});"
            " correct the path, or leave --plans out"
        ) from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: it is no text in UTF-8 (byte {error.start})") from error
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: it is no TOML: {error}") from error
