"""What a script's text tells a referee, read in a guarded process and never executed."""
