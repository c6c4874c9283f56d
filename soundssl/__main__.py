"""Run soundssl as `python -m soundssl`, which is also what torchrun -m starts."""

from soundssl.commands import main

if __name__ == "__main__":
    main()
