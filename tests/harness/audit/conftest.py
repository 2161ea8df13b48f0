"""Forged logs, and how to ask a verdict about them."""

from tests.harness.forge import draft, evidence, forge, script, status

__all__ = ["draft", "evidence", "forge", "script", "status"]
