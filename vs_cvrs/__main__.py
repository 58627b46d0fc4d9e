"""``python -m vs_cvrs`` is ``vs-cvrs``."""

from vs_cvrs.cli import main

if __name__ == "__main__":
    main()
