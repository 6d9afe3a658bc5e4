"""Takes Python's place for commands of the package, for those of benchmarks/, and for a script behind `--`.

tests/forking.py forks them.

Anything else is left to Python.
"""

import ctypes
import json
import os
import signal
import socket
import sys

arguments = sys.argv[1:]
if arguments[0] != "--" and not (arguments[0] == "-m" and arguments[1].startswith(("tf_pivae.", "benchmarks."))):
    os.execv(sys.executable, [sys.executable, *arguments])
if "TF_PIVAE_PARENT" in os.environ and sys.platform == "linux":
    # Gone with its parent, it ends the keeper, which is the command's parent.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != int(os.environ["TF_PIVAE_PARENT"]):
        sys.exit(128 + signal.SIGTERM)
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.path.join(os.path.dirname(sys.argv[0]), "socket"))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: connection.send(bytes([number])))
message = json.dumps([os.getpid(), arguments, os.getcwd(), dict(os.environ)]) + "\n"
socket.send_fds(connection, [message.encode()], [0, 1, 2])
status = int(connection.recv(16))
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
