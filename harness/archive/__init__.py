"""The records on disk: what a folder holds, what a name means, how one gets in."""
