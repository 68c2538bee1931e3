"""`pool_program.py METHOD`: a pool of `multiprocessing` that is terminated after its work."""

import multiprocessing
import sys

from acceptance.prefork_tasks import RUNS, record

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert len(pool.map(record, range(RUNS), chunksize=1)) == RUNS
