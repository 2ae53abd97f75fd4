# SPDX-License-Identifier: BSD-2-Clause
"""Results of `viaduct bench --json` as files, for the programs here that read them."""
import json

SCHEMA = "viaduct-bench-1"


class Unusable(Exception):
    """A file is not one of ours."""


def load(path):
    """The result in that file, as bench/schema.json says. Unusable"""
    try:
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise Unusable(f"{path}: no JSON of `viaduct bench --json`, schema {SCHEMA}")
    return found


def case_text(row):
    return ", ".join(f"{name} {value}" for name, value in row["case"].items())
