"""The tokens to train on: shards, FineWeb from the Hub, the synthetic source, the manifest."""
