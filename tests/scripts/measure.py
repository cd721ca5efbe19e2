"""Runs a command and prints, as JSON, what the operating system says it used: measure.py COMMAND [ARGUMENT ...]

Wall seconds, CPU seconds (user and system), and peak resident memory in KiB (ru_maxrss, which is VmHWM).
"""
import json
import os
import sys
import time

begin = time.monotonic()
# posix_spawn, not fork: the child's peak must not begin with a copy of this interpreter.
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(process, 0)
wall = time.monotonic() - begin
code = os.waitstatus_to_exitcode(status)
print(json.dumps({"code": code, "wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak_kib": used.ru_maxrss}))
