"""`python -m ser_mtl` is the command `ser-mtl`."""

from ser_mtl.cli import main

if __name__ == "__main__":
    main()
