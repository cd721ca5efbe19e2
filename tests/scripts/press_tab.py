#!/usr/bin/env python3
"""Types into a shell on a pseudo-terminal, as a person would: press_tab.py SETUP LINE SHELL [ARGUMENT...]

Sources SETUP, types LINE with a tab key at each \\t and Enter at its end, and prints the first line of the shell's output
that starts with RAN. Fails when there is none within two minutes, with all that the shell has said.
"""

import os
import pty
import re
import select
import signal
import sys
import time

setup, line, shell = sys.argv[1], sys.argv[2].replace("\\t", "\t"), sys.argv[3:]
child, terminal = pty.fork()
if child == 0:
    os.execvp(shell[0], shell)
output = ""
deadline = time.monotonic() + 120


def until(pattern):
    global output
    while True:
        found = re.search(pattern, output, re.MULTILINE)
        if found:
            return found
        readable, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        try:
            piece = os.read(terminal, 65536) if readable else b""
        except OSError:
            piece = b""
        if not piece:
            os.kill(child, signal.SIGKILL)
            sys.exit(f"{shell[0]} did not answer; it said: {output!r}")
        output += piece.decode(errors="replace").replace("\r", "\n")


# The marker is put together by the shell, so that its echo is not taken for it.
os.write(terminal, f"source {setup}; echo IS-''READY\n".encode())
until(r"IS-READY")
output = ""
os.write(terminal, line.encode() + b"\n")
print(until(r"^RAN.*\n").group().strip())
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
