"""Start a program, given as a file, as an installed command does: imported, its bytecode cached."""

import importlib
import os
import sys

sys.path[0], name = os.path.split(sys.argv.pop(1))
sys.exit(importlib.import_module(os.path.splitext(name)[0]).main())
