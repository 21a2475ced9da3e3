"""python -m mgv.cli"""

from mgv.cli import main

if __name__ == "__main__":
    main()
