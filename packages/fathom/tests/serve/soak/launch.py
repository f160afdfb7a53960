"""A server as `fathom serve` makes it, with limits that a test need not wait for.

`python launch.py MODEL JSON`: {"settings": of serve.limits.Settings, "engine": of EngineConfig, "waits": of
supervise.Waits, "files": how many it may open, 0 = as many as we}. It prints its port, then "up"; on standard
error what `fathom serve` says there.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys

from fathom.config.errors import ConfigError
from fathom.serve.limits import Settings
from fathom.serve.link import EngineLink
from fathom.serve.run import Running, listen
from fathom.serve.supervise import Waits


def main() -> int:
    """The exit status."""
    model, words = sys.argv[1], json.loads(sys.argv[2])
    engine, files = words["engine"], words["files"]
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    limits = {"running": engine["max_running"], "queue": engine["max_waiting"]} | words["settings"]
    settings = Settings(**limits | {"keys": tuple(limits.get("keys", ()))})
    place = listen("127.0.0.1", 0, settings)
    port = place.getsockname()[1]
    print(f"launched {port}", flush=True)
    waits = Waits(**words["waits"])
    link = EngineLink(model, engine, waits=waits, told=lambda line: print(line, file=sys.stderr, flush=True))
    try:
        return asyncio.run(Running(link, settings, place).run(lambda info: print("up", flush=True)))
    except ConfigError as problem:
        print(f"fathom: {problem}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
