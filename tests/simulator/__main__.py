"""`python -m simulator`: play histories by hand."""

import argparse
import logging
import sys
import time
import traceback

from .world import FailedHistoryError, simulate


def main() -> int:
    """Play one history, or many; says which failed, and why."""
    parser = argparse.ArgumentParser(prog="simulator", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this history alone")
    parser.add_argument("--seeds", type=int, default=1000, help="play so many")
    parser.add_argument("--first", type=int, default=0, help="from this seed on")
    parser.add_argument("--all", action="store_true", help="go on after a failure")
    options = parser.parse_args()
    logging.disable()
    one = options.seed is not None
    seeds = [options.seed] if one else range(options.first, options.first + options.seeds)
    began, failed, events = time.monotonic(), [], 0
    for seed in seeds:
        try:
            world = simulate(seed)
        except FailedHistoryError as error:
            if one:
                traceback.print_exc()
            else:
                print(error, flush=True)
            failed.append(seed)
            if not options.all:
                break
        else:
            events += len(world.said)
    took_s = time.monotonic() - began
    print(f"{len(seeds)} seeds from {seeds[0]}, {events} events, {took_s:.1f} s, failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
