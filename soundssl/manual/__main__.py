"""Write the manual pages into the folder named, or into man/: `python -m soundssl.manual man/`."""

import sys
from pathlib import Path

from soundssl.manual import write

if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "man"))
