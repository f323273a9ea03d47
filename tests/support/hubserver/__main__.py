"""Runs the server until its standard input closes, so that it never outlives who started it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from .world import World

world = World(Path(sys.argv[1]))
sys.stdout.write(json.dumps({"endpoint": world.endpoint, "cdn": world.cdn}) + "\n")
sys.stdout.flush()
sys.stdin.read()
os._exit(0)
