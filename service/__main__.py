"""Entry point of `python -m service`, which is the program `engram`."""

from service.cli.main import main

if __name__ == "__main__":
    main()
