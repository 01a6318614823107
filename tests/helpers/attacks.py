"""Programs that try to get out, to get at something, to cost too much, or to forge a result.

Each is a template: ``@NAME@`` is replaced by what the test planted. A program prints what it got hold of; a line
that begins with ``got`` is a hole in the sandbox.
"""

# ruff: noqa: E501
from __future__ import annotations

REACH = {
    "tcp": """
import socket
try:
    s = socket.create_connection(("127.0.0.1", @TCP@), 2)
    s.sendall(b"@SECRET@"); print("got tcp")
except OSError: pass
""",
    "udp": """
import socket
try:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"@SECRET@", ("127.0.0.1", @UDP@)); print("got udp")
except OSError: pass
""",
    "unix socket": """
import socket
for address in ("@FOLDER@/socket", "\\0@SECRET@"):
    try:
        s = socket.socket(socket.AF_UNIX); s.settimeout(2)
        s.connect(address); s.sendall(b"@SECRET@"); print("got", address)
    except OSError: pass
""",
    "other sockets": """
import socket
for family, kind, protocol in ((16, 3, 0), (17, 3, 768), (38, 5, 0), (40, 1, 0), (2, 3, 1), (10, 1, 0)):
    try: socket.socket(family, kind, protocol); print("got", family)
    except OSError: pass
try: socket.socketpair(); print("got a pair")
except OSError: pass
""",
    "listen": """
import socket
try: socket.create_server(("127.0.0.1", 0)); print("got a port")
except OSError: pass
""",
    "name lookup": """
import socket
try: print("got", socket.getaddrinfo("example.com", 80))
except OSError: pass
""",
}

READ = {
    "open": "print(open('@KEY@').read())",
    "os.open": "import os\nprint(os.read(os.open('@KEY@', os.O_RDONLY), 1000))",
    "up and down": "print(open('/usr/lib/../..@KEY@').read())",
    "change folder": "import os\nos.chdir('@FOLDER@')\nprint(open('key').read(), os.listdir('.'))",
    "list": "import os\nprint(os.listdir('@FOLDER@'))",
    "symlink": """
import os
for place in ("/tmp/l", "/dev/shm/l", "l", "/usr/lib/l", os.path.expanduser("~/l")):
    try: os.symlink("@KEY@", place); print("got a link"); print(open(place).read())
    except OSError: pass
""",
    "hard link": "import os\nos.link('@KEY@', '/tmp/hard')\nprint(open('/tmp/hard').read())",
    "through proc": """
import os
for process in ("self", "1", "@PARENT@", str(os.getppid()), "thread-self"):
    for way in ("root@KEY@", "cwd@KEY@", "cwd/key"):
        try: print(open(f"/proc/{process}/{way}").read())
        except OSError: pass
    try: print([open(f"/proc/{process}/fd/{n}").read(1000) for n in os.listdir(f"/proc/{process}/fd")])
    except OSError: pass
""",
    "import": "import sys\nsys.path.insert(0, '@FOLDER@')\nimport key_module\nprint(key_module.key)",
    "truncate and copy": "import os, shutil\nshutil.copy('@KEY@', '/tmp/copy')\nprint(open('/tmp/copy').read())",
    "system calls": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(1000)
for number in (2, 257, 437):
    how = (ctypes.c_uint64 * 3)() if number == 437 else 0
    at = () if number == 2 else (-100,)
    fd = libc.syscall(number, *at, b"@KEY@", how if number == 437 else 0, 24)
    if fd >= 0: libc.read(fd, buffer, 1000); print(buffer.value)
handle = ctypes.create_string_buffer(200); mount = ctypes.c_int()
ctypes.c_uint.from_buffer(handle).value = 128
if libc.name_to_handle_at(-100, b"@KEY@", handle, ctypes.byref(mount), 0) == 0: print("got a handle")
root = os.open("/usr/lib", os.O_RDONLY)
if libc.open_by_handle_at(root, handle, 0) >= 0: print("got by handle")
""",
    "passwords": """
for path in ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/proc/version", "/sys/kernel/uevent_helper"):
    try: print("got", open(path).read()[:100])
    except OSError: pass
""",
}

ENVIRONMENT = """
import os
found = [f"{name}={value}" for name, value in os.environ.items()]
for process in ["self", "1", "@PARENT@", *range(max(1, os.getppid() - 50), os.getppid() + 50)]:
    for file in ("environ", "cmdline", "maps", "mem", "stat"):
        try: found.append(str(open(f"/proc/{process}/{file}", "rb").read(100000)))
        except OSError: pass
print(found)
"""

MULTIPLY = {
    "fork": """
import os
for _ in range(100):
    try:
        if os.fork() == 0: print("got a child", flush=True); os._exit(0)
        print("got fork")
    except OSError: pass
""",
    "fork bomb": """
import os
for _ in range(8):  # 256 processes, if it comes to that
    try: os.fork(); print("got fork", flush=True)
    except OSError: break
""",
    "double fork": """
import os, time
try:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: time.sleep(30)
    print("got a daemon")
except OSError: pass
try: os.setsid(); print("got a session")
except OSError: pass
try: os.setpgid(0, 0); print("got a group")
except OSError: pass
""",
    "threads": """
import _thread, time
for _ in range(2000):
    try: _thread.start_new_thread(time.sleep, (30,)); print("got a thread")
    except RuntimeError: break
""",
    "subprocess": """
import os, subprocess
for way in (
    lambda: subprocess.run(["/bin/sh", "-c", "echo got"]), lambda: os.system("echo got"),
    lambda: os.posix_spawn("/bin/sh", ["sh", "-c", "echo got"], {}), lambda: os.popen("echo got").read(),
    lambda: __import__("multiprocessing").Process(target=print, args=("got",)).start(),
):
    try: print(way())
    except OSError: pass
""",
    "exec": """
import os, sys
for path in ("/bin/sh", "/usr/bin/su", sys.executable, "/usr/bin/true"):
    try: os.execv(path, ["x", "-c", "echo got"])
    except OSError: pass
""",
    "memfd and exec": """
import ctypes, os
try: fd = os.memfd_create("x")
except OSError: fd = 0
else: print("got a memory file")
libc = ctypes.CDLL(None)
empty = (ctypes.c_char_p * 1)()
if libc.fexecve(fd, empty, empty) == 0: print("got exec")
if libc.syscall(322, fd, b"", empty, empty, 0x1000) == 0: print("got execveat")
""",
    "system calls": """
import ctypes
libc = ctypes.CDLL(None)
CALLS = ((56, 17, 0, 0, 0, 0), (57,), (58,), (435, bytes(88), 88), (56, 0x10F00, 0, 0, 0, 0))
for number, *arguments in CALLS:
    result = libc.syscall(number, *arguments)
    if result == 0: libc._exit(7)
    if result > 0: print("got", number)
""",
}

BREAK_OUT = {
    "signals": """
import os, signal
for target in (-1, 0, 1, os.getppid(), -os.getpgrp(), @PARENT@):
    for number in (0, signal.SIGKILL, signal.SIGSTOP):
        try: os.kill(target, number); print("got", target); break
        except OSError: pass
try: os.killpg(0, 9); print("got group")
except OSError: pass
""",
    "signals by other means": """
import ctypes, fcntl, os, resource
libc = ctypes.CDLL(None, use_errno=True)
parent = os.getppid()
r, w = os.pipe()
for command in (8, 10, 15):
    try: fcntl.fcntl(r, command, parent); print("got fcntl", command)
    except OSError: pass
for number, *arguments in ((129, parent, 9, bytes(128)), (234, parent, parent, 9), (200, parent, 9), (424, 0, 9, 0, 0)):
    if libc.syscall(number, *arguments) == 0: print("got", number)
for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS):
    try: resource.prlimit(parent, kind, (1, 1)); print("got prlimit")
    except OSError: pass
if libc.setpriority(0, parent, 19) == 0: print("got setpriority")
""",
    "system calls": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
calls = dict(ptrace=101, mount=165, umount2=166, pivot_root=155, chroot=161, unshare=272, setns=308, keyctl=250,
    add_key=248, bpf=321, io_uring_setup=425, io_uring_enter=426, perf_event_open=298, userfaultfd=323,
    process_vm_readv=310, process_vm_writev=311, kexec_load=246, init_module=175, reboot=169, personality=135,
    shmget=29, msgget=68, semget=64, mq_open=240, setuid=105, setgid=106, capset=126, mknod=133, mkdir=83,
    unlink=87, rename=82, chmod=90, chown=92, utime=132, truncate=76, ftruncate=77, inotify_init=253, flock=73,
    pidfd_open=434, memfd_create=319, memfd_secret=447, landlock=444, seccomp=317, timer_create=222,
    sched_setscheduler=144, setdomainname=171, syslog=103, acct=163, swapon=167, quotactl=179, newmount=428)
path = ctypes.create_string_buffer(b"/no/such/place" + bytes(200))
for name, number in calls.items():
    for arguments in ((0, 0, 0, 0, 0, 0), (path, 0o700, 0, 0, 0, 0), (8, path, 0, 0, 0, 0)):
        result = libc.syscall(number, *arguments)
        if result >= 0 or ctypes.get_errno() not in (1, 38): print("got", name, result, ctypes.get_errno())
""",
    "limits raised": """
import resource
for kind in range(16):
    try:
        soft, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if hard != resource.RLIM_INFINITY: print("got", kind)
    except (OSError, ValueError): pass
""",
    "descriptors": """
import os, stat
for fd in range(3, 1024):
    try: os.fstat(fd); print("got", fd)
    except OSError: pass
for fd in range(3):
    if not stat.S_ISREG(os.fstat(fd).st_mode) and not stat.S_ISFIFO(os.fstat(fd).st_mode): print("got odd", fd)
try: os.write(0, b"x"); print("got a writable stdin")
except OSError: pass
""",
    "many descriptors": """
import os
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
if len(held) > 100: print("got", len(held))
""",
}

WRITE = """
import os
for folder in ("@FOLDER@", "/", "/tmp", "/var/tmp", "/dev/shm", "/dev", "/run", "/usr/lib", "/usr/bin", "/etc", ".",
        os.path.expanduser("~"), os.path.dirname(os.__file__), "/proc/self", "/sys", "@TEMPORARY@"):
    path = os.path.join(folder, "@SECRET@")
    for way in (
        lambda: open(path, "w"), lambda: os.mkdir(path), lambda: os.symlink("/", path), lambda: os.mkfifo(path),
        lambda: os.mknod(path), lambda: os.link("/dev/null", path), lambda: os.rename("@KEY@", path),
        lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR), lambda: os.chmod(folder, os.stat(folder).st_mode & 0o7777),
        lambda: os.utime(folder), lambda: os.chown(folder, -1, -1), lambda: os.rmdir(path),
        lambda: os.setxattr(folder, "user.x", b"x"), lambda: open("@KEY@", "a"), lambda: os.truncate("@KEY@", 0),
        lambda: os.unlink("@KEY@"), lambda: open(os.__file__, "a"),
    ):
        try: way(); print("got", path, way.__code__.co_names, os.path.exists(path))
        except OSError: pass
"""

# How each ends; an empty word is a failure that differs between interpreters.
COSTLY = {
    "loop": ("while True: pass", "time limit"),
    "sleep": ("import time\ntime.sleep(1000)", "time limit"),
    "read of nothing": ("import os\nr, w = os.pipe()\nos.read(r, 1)", "time limit"),
    "signals ignored": (
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        "time limit",
    ),
    "stdout closed": ("import os, time\nos.closerange(0, 64)\ntime.sleep(1000)", "time limit"),
    "errors swallowed": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "time limit",
    ),
    "big power": ("x = 10\nx = x**10**9", "time limit"),
    "regular expression": ("import re\nre.match(r'(a+)+$', 'a' * 50 + 'b')", "time limit"),
    "memory": ("x = []\nwhile True: x.append(bytearray(1 << 20))", "memory limit"),
    "memory by map": ("import mmap\nx = [mmap.mmap(-1, 1 << 24) for _ in range(1000)]", "error"),
    "string": ("x = 'a'\nwhile True: x += x", "memory limit"),
    "stdout": ("while True: print('x' * 1000)", "output limit"),
    "stdout at once": ("import os\nx = b'x' * 10**7\nwhile True: os.write(1, x)", "output limit"),
    "stderr": ("import sys\nwhile True: print('x' * 1000, file=sys.stderr)", "output limit"),
    "recursion": ("import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f() + 1\nf()", ""),
    "crash": ("import ctypes\nctypes.string_at(0)", "error"),
    "exit never": ("import atexit, time\natexit.register(time.sleep, 1000)", "time limit"),
    "stopped": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "time limit"),
    "stopped in the end": (
        "import atexit, os, signal\natexit.register(os.kill, os.getpid(), signal.SIGSTOP)\nprint('x')",
        "time limit",
    ),
    "flush never": (
        "import sys\nclass F:\n    def flush(self):\n        while True: pass\nsys.stdout = F()",
        "time limit",
    ),
    "finaliser": ("class A:\n    def __del__(self):\n        while True: pass\nA()", "time limit"),
    "drop by drop": ("import os, time\nwhile True:\n    os.write(1, b'x')\n    time.sleep(1e-4)", "time limit"),
    "small pipe": (
        "import fcntl, os\nfcntl.fcntl(1, 1031, 4096)\nwhile True: os.write(1, b'x' * 10**6)",
        "output limit",
    ),
    "long message": ("raise ValueError('x' * 10**7)", "output limit"),
    "deep message": (
        "e = Exception()\nfor _ in range(10**4):\n    n = Exception()\n    n.__cause__, n.__context__ = e, e\n    e = n\nraise e",
        "error",
    ),
    "no end of exceptions": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
        "time limit",
    ),
}

FORGE = {
    "exit 0": "import sys\nsys.exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "always equal": "class A:\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x): return A()",
    "equal number": (
        "class A(int):\n    def __eq__(self, other): return True\n    def __repr__(self): return 'anything'\n"
        "    __hash__ = int.__hash__\ndef f(x): return A(0)"
    ),
    "equal text": "class A(str):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x): return A('a')",
    "json replaced": (
        "import json, json.encoder\njson.dumps = json.encoder.encode_basestring = lambda *a, **k: 'true'\n"
        "json.JSONEncoder.default = lambda *a: 'any'\ndef f(x): return object()"
    ),
    "builtins replaced": (
        "import builtins, os, sys\nbuiltins.len = builtins.print = builtins.all = builtins.any = lambda *a, **k: True\n"
        "builtins.__build_class__ = None\ndef f(x): return True"
    ),
    "exit replaced": "import os, sys\nos._exit = sys.exit = lambda *a: None\ndef f(x): return 1 / 0",
    "hooks": "import sys\nsys.excepthook = sys.unraisablehook = lambda *a: None\ndef f(x): 1 / 0",
    "interrupt": "def f(x): raise KeyboardInterrupt",
    "generator exit": "def f(x): raise GeneratorExit",
    "not a number": "def f(x): return float('nan')",
    "huge number": "import sys\nsys.set_int_max_str_digits(0)\ndef f(x): return 10**50000",
    "deep list": "def f(x):\n    y = []\n    for _ in range(10**5): y = [y]\n    return y",
    "list of itself": "def f(x):\n    y = []\n    y.append(y)\n    return y",
    "list that lies": (
        "class L(list):\n    def __iter__(self): return iter([3, 2, 1])\n    def __len__(self): return 3\n"
        "    def __getitem__(self, i): return 3 - i\ndef f(x): return L()"
    ),
    "dictionary that lies": (
        "class D(dict):\n    def items(self): raise SystemExit(0)\n    keys = __iter__ = items\ndef f(x): return D(a=1)"
    ),
    "text that lies": "class S(str):\n    def encode(self, *a): return b'[1, 2]'\ndef f(x): return S('a')",
    "value twice": "import os\ndef f(x):\n    os.write(3, b'[1, 2, 3]')\n    return [1, 2, 3]",
    "value closed": "import os\ndef f(x):\n    os.close(3)\n    return [1, 2, 3]",
    "values by another name": "def f(x): return {1: 1, '1': 2}",
    "generator": "def f(x): yield from (1, 2, 3)",
    "modules gone": "import sys\nsys.modules.clear()\ndef f(x): return len",
    "prefix": "def f(x):\n    import os\n    os.write(3, b'[1, ')\n    os._exit(0)",
}
"""Programs for which the right value is ``[1, 2, 3]``; the input is ``[0]``."""

FRAMES = """
import json, os
payload = json.dumps({"status": "ok", "seconds": 0.0, "detail": ""}).encode() + b"\\n@FORGED@"
frame = len(payload).to_bytes(4, "big") + payload
for descriptor in range(1024):
    if descriptor == 2: continue
    try: os.write(descriptor, frame * 3)
    except OSError: pass
for place in (f"/proc/{os.getppid()}/fd", "/proc/self/fd", "/dev/fd", "/proc/1/fd"):
    for descriptor in range(64):
        try:
            again = os.open(f"{place}/{descriptor}", os.O_WRONLY)
            os.write(again, frame * 3)
            os.close(again)
        except OSError: pass
"""

LOOK_AROUND = """
import gc, sys, types
seen, found, todo = set(), [], [gc.get_objects(), sys.modules, sys.argv]
frame = sys._getframe()
while frame: todo += [frame.f_locals, frame.f_globals, frame.f_code]; frame = frame.f_back
while todo and len(seen) < 300000:
    thing = todo.pop()
    if id(thing) in seen: continue
    seen.add(id(thing))
    if isinstance(thing, (str, bytes, bytearray)): found.append(bytes(thing, "utf-8", "replace") if isinstance(thing, str) else bytes(thing))
    elif isinstance(thing, memoryview): found.append(bytes(thing))
    else:
        try: todo += gc.get_referents(thing)
        except Exception: pass
text = b" ".join(found)
print(len(found) > 1000, [word for word in (@WORDS@) if word[::-1].encode() in text])
"""

CPP_STEAL = {
    "include": '#include "@KEY@"\nint main() {}',
    "include as text": '#include <cstdio>\nint main() { puts(\n#include "@KEY@"\n); }',
    "incbin": 'asm(".global key\\nkey: .incbin \\"@KEY@\\"\\n.byte 0");\nextern "C" char key[];\n#include <cstdio>\nint main() { puts(key); }',
    "parent's environment": '#include "/proc/@PARENT@/environ"\nint main() {}',
    "read": '#include <cstdio>\nint main() { char b[999] = {}; FILE *f = fopen("@KEY@", "r"); if (f) puts(fgets(b, 999, f)); }',
}

CPP_DO = """
#include <cstdio>
#include <cstdlib>
#include <cerrno>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
int main() {
    if (socket(AF_INET, SOCK_STREAM, 0) >= 0) puts("got a socket");
    if (fork() >= 0) puts("got fork");
    if (vfork() >= 0) { puts("got vfork"); _exit(0); }
    if (system("echo got system") == 0) puts("got system");
    try { std::thread t([] { puts("got a thread"); }); t.join(); } catch (...) {}
    if (kill(-1, 9) == 0 || kill(getppid(), 9) == 0) puts("got kill");
    if (setsid() >= 0) puts("got a session");
    if (chmod(".", 0700) == 0 || mkdir("@SECRET@", 0700) == 0) puts("got the folder");
    const char *places[] = {"@SECRET@", "/tmp/@SECRET@", "/dev/shm/@SECRET@", "@FOLDER@/@SECRET@", "solution"};
    for (const char *place : places) if (open(place, O_CREAT | O_WRONLY, 0600) >= 0) printf("got %s\\n", place);
    for (int fd = 3; fd < 64; fd++) if (fcntl(fd, F_GETFD) >= 0) printf("got %d\\n", fd);
}
"""

CPP_STAY = """
#include <cstdio>
#include <fcntl.h>
#include <iostream>
#include <string>
#include <sys/auxv.h>
#include <unistd.h>
int main() {
    std::string word, path = (const char *) getauxval(AT_EXECFN);
    std::cin >> word;
    if (word == "honest") { puts("honest"); return 0; }
    for (std::string name : {path, path + ".cpp"})
        if (open(name.c_str(), O_WRONLY) >= 0) printf("got %s\\n", name.c_str());
    fflush(stdout);
    // as another program it may write over its own, which runs no more
    std::string command = "echo x > " + path + " && echo got the program; echo x > " + path + ".cpp && echo got the source";
    execl("/bin/sh", "sh", "-c", command.c_str(), (char *) 0);
}
"""
