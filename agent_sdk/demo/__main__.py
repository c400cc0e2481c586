"""`python -m agent_sdk.demo [PATH]`."""

import sys

from agent_sdk.demo.cli import main

sys.exit(main())
