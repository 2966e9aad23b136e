"""What was measured, and what may be said of it: estimates, tables, claims, records of runs."""
