"""Holds the archive against itself: hashes, contract, published figures, its own logs."""
