"""`python -m simulator`: play histories by hand."""

import argparse
import logging
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from .world import FailedHistoryError, simulate

_CHUNK = 50

Result = tuple[int, int, str]
"""The seed, how many events its history had, and what did not hold."""


def main() -> int:
    """Play one history, or many; says which failed, and why."""
    parser = argparse.ArgumentParser(prog="simulator", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this history alone")
    parser.add_argument("--seeds", type=int, default=1000, help="play so many")
    parser.add_argument("--first", type=int, default=0, help="from this seed on")
    parser.add_argument("--jobs", type=int, default=1, help="in so many processes")
    parser.add_argument("--all", action="store_true", help="go on after a failure")
    options = parser.parse_args()
    began = time.monotonic()
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
    else:
        seeds = range(options.first, options.first + options.seeds)
    played, events, failed = 0, 0, []
    with ProcessPoolExecutor(options.jobs) as pool:
        run_seed = partial(play, with_traceback=options.seed is not None)
        for seed, count, error in pool.map(run_seed, seeds, chunksize=min(_CHUNK, len(seeds))):
            played += 1
            events += count
            if error:
                print(error, flush=True)
                failed.append(seed)
                if not options.all:
                    pool.shutdown(wait=False, cancel_futures=True)
                    break
    took_s = time.monotonic() - began
    print(f"{played} seeds from {seeds[0]}: {events} events, {took_s:.1f} s, failed: {failed}")
    return 1 if failed else 0


def find_failure(seeds: range) -> str:
    """What did not hold of the first history that failed."""
    return next((error for seed in seeds if (error := play(seed, with_traceback=True)[2])), "")


def play(seed: int, *, with_traceback: bool) -> Result:
    """One history; `with_traceback`: with the traceback."""
    logging.disable()
    try:
        return seed, len(simulate(seed).emitted), ""
    except FailedHistoryError as error:
        return seed, 0, "".join(traceback.format_exception(error)) if with_traceback else str(error)


if __name__ == "__main__":
    sys.exit(main())
