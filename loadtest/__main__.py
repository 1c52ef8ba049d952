"""`python -m loadtest` is `liveroom-loadtest`."""

from loadtest.cli import main

if __name__ == "__main__":
    main()
