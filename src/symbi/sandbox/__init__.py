"""Where code runs, and how risky it is."""
