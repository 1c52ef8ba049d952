"""`python -m engine`: the same as `liveroom`."""

from engine.cli import main

if __name__ == "__main__":
    main()
