"""`python -m service` is the program `engram`."""

from service.cli.main import main

if __name__ == "__main__":
    main()
