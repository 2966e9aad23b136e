"""The command line, and what is behind it: recipes, what is made of them, runs and their records."""
