"""A hostile custom node: tries what it is told to and says what happened.

Its input holds one attempt a line, such as `read /etc/passwd`; its answer one line for each:
`ok`, `refused` with the system's error, or `failed` with another reason.
Run by hand, it takes the lines as arguments.
"""

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
MACHINE = os.uname().machine
KEYCTL = {"x86_64": 250, "aarch64": 219}
X32 = 0x40000000
MPTCP = 262
LIMIT = 5


def list_directory(path):
    return "%d entries" % len(os.listdir(path))


def read(path):
    with open(path, "rb") as file:
        return "%d bytes" % len(file.read(4096))


def write(path):
    with open(path, "wb") as file:
        file.write(b"hostile")


def append(path):
    with open(path, "ab"):
        pass


def truncate(path):
    os.truncate(path, 0)


def remove(path):
    os.remove(path)


def link(path):
    os.symlink("/", path)


def change_mode(path):
    before = os.stat(path).st_mode
    os.chmod(path, 0)
    if os.stat(path).st_mode == before:
        raise PermissionError(errno.EPERM, "nothing was changed", path)


def change_mode_open(path):
    """Files that may only be read are changed through what was opened for reading."""
    file = os.open(path, os.O_RDONLY)
    try:
        before = os.fstat(file).st_mode
        for mode in (0, 0o600, 0o4755):
            try:
                os.fchmod(file, mode)
            except PermissionError:
                pass
            if os.fstat(file).st_mode != before:
                os.fchmod(file, before & 0o7777)
                return
    finally:
        os.close(file)
    raise PermissionError(errno.EPERM, "nothing was changed", path)


def take_reading(path):
    file = os.open(path, os.O_RDONLY)
    try:
        before = os.fstat(file).st_mode
        os.fchmod(file, 0)
        os.fchmod(file, before & 0o7777)
    finally:
        os.close(file)


def set_attribute(path):
    file = os.open(path, os.O_RDONLY)
    try:
        os.setxattr(file, "user.hostile", b"hostile")
    except OSError as error:
        # As if there were none; `cp -a` would fail on any other error.
        if error.errno == errno.ENOTSUP:
            raise PermissionError(errno.EPERM, "no attributes", path) from error
        raise
    finally:
        os.close(file)


def told(result):
    """What a function of the C library answered, or its error."""
    if result == -1:
        number = ctypes.get_errno()
        # Calls that seem not to be there are refused as well.
        number = errno.EPERM if number == errno.ENOSYS else number
        raise OSError(number, os.strerror(number))
    return result


def limit(pid):
    import resource

    # Changes nothing: any limit could be set in the same way.
    before = resource.prlimit(int(pid), resource.RLIMIT_FSIZE)
    resource.prlimit(int(pid), resource.RLIMIT_FSIZE, before)


def slow_group(group):
    os.setpriority(os.PRIO_PGRP, int(group), 1)


def shared_memory(number):
    LIBC.shmat.restype = ctypes.c_ssize_t
    address = told(LIBC.shmat(int(number), None, 0))
    return ctypes.string_at(address).decode()


def semaphore(_):
    told(LIBC.semctl(told(LIBC.semget(0, 1, 0o1600)), 0, 0))


def messages(_):
    told(LIBC.msgctl(told(LIBC.msgget(0, 0o1600)), 0, None))


def keyring(_):
    # The keyring of the account, which all its programs share.
    told(LIBC.syscall(KEYCTL[MACHINE], 0, -4, 1))


def x32(_):
    told(LIBC.syscall(X32 | 41, socket.AF_UNIX, socket.SOCK_STREAM, 0))


def connect(port):
    with socket.create_connection(("127.0.0.1", int(port)), LIMIT):
        pass


def connect_multipath(port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP) as connection:
        connection.settimeout(LIMIT)
        connection.connect(("127.0.0.1", int(port)))


def connect_fast(port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.sendto(b"hostile", socket.MSG_FASTOPEN, ("127.0.0.1", int(port)))


def listen(port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", int(port)))
        server.listen()


def connect_file(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT)
        connection.connect(path)


def connect_abstract(name):
    connect_file("\0" + name)


def send_signal(pid):
    # Changes nothing for a process that runs.
    os.kill(int(pid), signal.SIGCONT)


def run(program):
    done = subprocess.run(program.split(), capture_output=True, text=True, timeout=LIMIT)
    if done.returncode != 0:
        raise RuntimeError("exit code %d: %s" % (done.returncode, done.stderr.strip()[-200:]))
    return done.stdout.strip()[:200]


def look_up(name):
    return socket.getaddrinfo(name, 80)[0][4][0]


def fork_away(path):
    """Leaves a process in a session of its own that ignores SIGTERM and writes its id."""
    program = 'trap "" TERM; echo $$ > "$1"; while :; do sleep 1000; done'
    starter = '(setsid sh -c "$0" sh "$1" > /dev/null 2>&1 &)'
    subprocess.run(["sh", "-c", starter, program, path], check=True, timeout=LIMIT)


def ignore_sigterm(_):
    # Python's own function works in the main thread alone, where nodes do not run.
    ignore = ctypes.cast(1, ctypes.c_void_p)
    ctypes.CDLL(None).signal(signal.SIGTERM, ignore)


def show_limits(_):
    import resource

    limits = [resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE]
    return " ".join(str(resource.getrlimit(limit)[1]) for limit in limits)


ACTIONS = {
    "list": list_directory,
    "read": read,
    "write": write,
    "append": append,
    "truncate": truncate,
    "remove": remove,
    "link": link,
    "change-mode": change_mode,
    "change-mode-open": change_mode_open,
    "take-reading": take_reading,
    "set-attribute": set_attribute,
    "limit": limit,
    "slow-group": slow_group,
    "shared-memory": shared_memory,
    "semaphore": semaphore,
    "messages": messages,
    "keyring": keyring,
    "x32": x32,
    "connect": connect,
    "connect-multipath": connect_multipath,
    "connect-fast": connect_fast,
    "listen": listen,
    "connect-file": connect_file,
    "connect-abstract": connect_abstract,
    "signal": send_signal,
    "run": run,
    "look-up": look_up,
    "fork-away": fork_away,
    "ignore-sigterm": ignore_sigterm,
    "show-limits": show_limits,
}


def attempt(line):
    action, _, argument = line.partition(" ")
    try:
        told = ACTIONS[action](argument)
    except OSError as error:
        name = errno.errorcode.get(error.errno, "error")
        is_refused = error.errno in (errno.EACCES, errno.EPERM)
        return "%s %s %s" % ("refused" if is_refused else "failed", name, error)
    except Exception as error:
        return "failed %s" % error
    return "ok %s" % told if told else "ok"


class SentinelProbe:
    CATEGORY = "probe"
    FUNCTION = "run"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"attempts": ("STRING", {"default": "", "multiline": True})}}

    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")

    def run(self, attempts):
        answers = ["%s: %s" % (line, attempt(line)) for line in attempts.splitlines() if line]
        print("\n".join(answers), flush=True)
        return {"ui": {"text": answers}}


NODE_CLASS_MAPPINGS = {"SentinelProbe": SentinelProbe}

if __name__ == "__main__":
    for line in sys.argv[1:]:
        print("%s: %s" % (line, attempt(line)), flush=True)
