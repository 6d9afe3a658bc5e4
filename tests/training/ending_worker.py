"""A worker at the end of a training, which exits after so many of the exchanges there: 0, 1, or all 2."""

import os
import sys
import time

from tf_pivae.training.workers import Workers, default_strategy

if __name__ == "__main__":
    exchanges = int(sys.argv[1])
    with Workers(default_strategy()) as workers:
        if exchanges == 1:
            workers.stop_requested(0, requested=False)  # The same exchange as the first one at the end.
            time.sleep(1.0)  # Until the other has its answer, too.
        if exchanges < 2:
            os._exit(0)
