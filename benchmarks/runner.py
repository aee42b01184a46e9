"""Runs one command and writes what it took: `python -I runner.py REPORT COMMAND...`.

A small process of its own: on Linux a new process's peak begins with what its parent held, which
for a parent with torch would be more than many commands take.
"""

import json
import os
import subprocess
import sys
import time

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss


def main(report: str, command: list[str]) -> None:
    """Run the command to its end.

    Args:
        report: File for `seconds`, `peak_mib` of its largest process, and `status`.
        command: Program and arguments.
    """
    began = time.perf_counter()
    pid = subprocess.Popen(command).pid
    _, status, usage = os.wait4(pid, 0)
    took = {
        "seconds": time.perf_counter() - began,
        "peak_mib": usage.ru_maxrss * UNIT / 2**20,
        "status": os.waitstatus_to_exitcode(status),
    }
    with open(report, "w", encoding="utf-8") as file:
        json.dump(took, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
