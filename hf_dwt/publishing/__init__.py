"""What goes with a student to where others find it: its record, its card, its curves."""
