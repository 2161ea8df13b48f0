"""Someone else's folder of logs, made into records of one's own without running anything in them."""
