"""Runs the command of a job, and writes its output and its exit status into files.

    python -m cytoray_services.jobs.recorder FOLDER COMMAND [ARGUMENT]...

Ray stores the log of a job in its own folder, which is removed with the cluster.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from cytoray_analysis.files import open_private, write_whole

_LAST_SECONDS = 10.0  # for the rest in the pipe, which a process that outlives the command may keep open


def record(folder: Path, command: Sequence[str]) -> int:
    """Run a command to its end, and return its exit status in the form of a shell.

    Ray stops a job with a signal to all of its processes: this one continues until the command has ended.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # unlike SIG_IGN, the command does not inherit a handler
    readable, writable = os.pipe()
    process = subprocess.Popen(command, stdout=writable, stderr=writable)
    os.close(writable)
    copying = threading.Thread(target=_copy, args=(readable, folder / "log"), daemon=True)
    copying.start()
    status = process.wait()
    copying.join(_LAST_SECONDS)
    status = status if status >= 0 else 128 - status
    try:
        write_whole(folder / "ended", str(status), private=True)
    except OSError as error:  # a full disk does not change how the command ended
        print(f"the exit status of the job cannot be written: {error}", flush=True)
    return status


def _copy(readable: int, path: Path) -> None:
    """Print the output of a pipe, and append it to a file while there is space."""
    with open_private(path) as log:
        recording = True
        while piece := os.read(readable, 2**16):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            try:
                if recording:
                    os.write(log.fileno(), piece)
            except OSError as error:  # a full disk does not end the job
                recording = False
                print(f"the log is no longer written: {error}", flush=True)


if __name__ == "__main__":
    sys.exit(record(Path(sys.argv[1]), sys.argv[2:]))
