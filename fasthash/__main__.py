"""``python -m fasthash``: the same as the ``fasthash`` command."""

import sys

from fasthash.cli import main

sys.exit(main())
