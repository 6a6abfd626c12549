"""`python -m service`: the service as a process, set up by its environment."""

import asyncio
import logging
import sys

import uvloop

from service.serve import serve
from service.settings import CannotStart, load_settings


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(load_settings()))
    except CannotStart as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
