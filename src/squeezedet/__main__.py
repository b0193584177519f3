"""``python -m squeezedet`` is the command ``squeezedet``."""

from squeezedet.cli.main import main

if __name__ == "__main__":
    main()
