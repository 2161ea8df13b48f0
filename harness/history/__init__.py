"""The public history and our replays of it, read: one record on a screen, the ledgers, the figures, the page."""
