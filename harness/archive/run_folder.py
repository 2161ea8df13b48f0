"""The names in a run folder, said once: whoever writes one, and whoever reads one, takes them from here."""

LOG, FACTS = "log.txt", "run.json"
STDOUT, STDERR = "stdout.txt", "stderr.txt"
RANKS = "ranks"  # folder of torchrun's own log files, while the job runs
RESERVE = ".reserve"  # space kept on the disk while the job runs, so that its end can be told on a full one
SHOWN = "shown.csv"  # beside the records: a row for each run kept in their `logs/`
