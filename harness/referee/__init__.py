"""Logs in, a verdict out: each rule is one check with its evidence."""
