"""The training loop, what it trains, and what it keeps: every part of the book stands on it."""
