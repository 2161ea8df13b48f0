"""What changed between two scripts: aligned, counted and laid out to be read."""
