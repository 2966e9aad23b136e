"""``python -m kdutils`` is the command ``kdutils``."""

from kdutils.command.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
