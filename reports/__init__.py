"""Numbers to pictures and pages: takes data frames and dataclasses, knows nothing of torchrun.

charts.py        the five figures by name, and how each becomes bytes
  progress, attribution, curves, machine, significance: one figure a file
  style.py       themes, sizes and the settings that make the bytes depend on the data alone
  axes.py        ticks as a person would write them
  labels.py      names that never collide
leaderboard.py   markdown, CSV, JSON, and the table inside a page
site.py          the static page, from templates/
  cards.py       what the page says about one record
  diffs.py       what changed between two scripts, highlighted
  inline.py      a figure made fit to stand inside a page
"""
