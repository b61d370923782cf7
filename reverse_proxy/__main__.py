"""`python -m reverse_proxy`."""

import sys

from reverse_proxy.server import main

sys.exit(main())
