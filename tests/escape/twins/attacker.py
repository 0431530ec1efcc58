"""The Python twin of the attacker: attempts that an interpreter makes differently.

`attacker.py list` prints the table, `attacker.py attempt NUMBER VARIANT --params JSON` makes one outside
the walls as positive control, and without arguments it is a plugin. Answers are those of the static
attacker (`attacker/src/outcome.rs`): `succeeded` only where the goal was reached.
"""
import ctypes, errno, json, mmap, os, signal, socket, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
OUTSIDE = len(sys.argv) > 1
TABLE = {}


class Blocked(Exception):
    pass


def attempt(number, variant, name, control="run", harmful=False):
    def keep(function):
        TABLE[number, variant] = (name, control, harmful, function)
        return function
    return keep


def call(number, *args):
    """One raw call; every argument with all its 64 bits."""
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    answer = libc.syscall(ctypes.c_long(number), *args)
    if answer == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer


def holds(params, data):
    secret = params.get("secret", "").encode()
    return bool(secret) and secret in data


def read(params, path):
    with open(path, "rb") as file:
        data = file.read(1 << 16)
    if not holds(params, data):
        raise Blocked("not the secret")
    return path


def in_child(work, seconds=5):
    """Runs `work` in a child, which tells by a pipe; for what cannot be undone."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            text = "ok"
        except OSError as e:
            text = str(e.errno)
        except BaseException as e:  # the child must end here, whatever happens
            text = "no " + repr(e)
        os.write(w, text.encode())
        os._exit(0)
    os.close(w)
    said = os.read(r, 4096).decode()
    os.close(r)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        raise Killed(signal.Signals(os.WTERMSIG(status)).name)
    if said == "ok":
        return
    if said.isdigit():
        raise OSError(int(said), os.strerror(int(said)))
    raise Blocked(said)


class Killed(Exception):
    pass


def victim(params):
    """The host's process; outside one of our own."""
    if "host_pid" in params:
        return params["host_pid"], lambda: None
    child = subprocess.Popen(["/bin/sleep", "30"], env={"PALISADE_VICTIM": "1"})
    time.sleep(0.05)

    def end():
        child.kill()
        child.wait()
    return child.pid, end


# Files

@attempt(1, "secret", "open() of a secret file of the host", "params")
def _(p):
    return read(p, p["secret_path"])


@attempt(1, "secret-ctypes", "openat by ctypes, without Python's own open", "params")
def _(p):
    fd = call(257, -100, p["secret_path"].encode(), 0, 0)
    if not holds(p, os.read(fd, 4096)):
        raise Blocked("not the secret")
    return "read"


@attempt(1, "secret-reopen", "the secret by os.open with O_PATH and /proc/self/fd", "params")
def _(p):
    fd = os.open(p["secret_path"], os.O_PATH)
    return read(p, f"/proc/self/fd/{fd}")


@attempt(1, "import", "the secret as a module", "params")
def _(p):
    from importlib.machinery import SourceFileLoader
    if not holds(p, SourceFileLoader("secret", p["secret_path"]).get_data(p["secret_path"])):
        raise Blocked("not the secret")
    return "read"


@attempt(2, "absolute", "create a file outside the grant", "params")
def _(p):
    path = p["outside_dir"] + "/twin"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)
    return path


@attempt(2, "symlink", "write through a symlink planted in the grant", "params")
def _(p):
    link = f"{p['granted']}/twin-link"
    os.symlink(p["outside_file"], link)
    try:
        with open(link, "ab"):
            return link
    finally:
        os.unlink(link)


@attempt(2, "bytecode", "write bytecode beside the plugin's own program")
def _(p):
    folder = os.path.dirname(os.path.abspath(__file__)) + "/__pycache__"
    os.makedirs(folder)
    os.rmdir(folder)
    return folder


@attempt(6, "scan", "descriptors beyond the plugin's four")
def _(p):
    if OUTSIDE:
        # A shell outside hands on what it holds.
        os.dup2(0, 100)
    extra = []
    for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else map(str, range(1024)):
        if int(name) > 3:
            try:
                link = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                continue
            # The listing itself, and what the interpreter's file objects duplicate of the channel.
            if not link.startswith("/proc/") and link != os.readlink("/proc/self/fd/3" if not OUTSIDE else "/proc/self/fd/2"):
                extra.append(link)
    if not extra and OUTSIDE:
        extra = ["100"]
    if not extra:
        raise Blocked("no others")
    return str(extra)


@attempt(8, "init-environ", "the environment of process 1", "root")
def _(p):
    with open("/proc/1/environ", "rb") as file:
        file.read()
    return "read"


@attempt(8, "host-environ", "the environment of the host's process")
def _(p):
    pid, end = victim(p)
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            file.read()
        return "read"
    finally:
        end()


@attempt(8, "init-root", "/proc/1/root and the secret's path", "root+params")
def _(p):
    return read(p, "/proc/1/root" + p["secret_path"])


@attempt(12, "setuid", "os.setuid(0)", "root")
def _(p):
    os.setuid(0)
    if os.getuid() != 0:
        raise Blocked("not root")
    # Inside, 0 is not mapped at all; outside root is what it is already.
    return "uid 0"


@attempt(68, "set-id", "leave a set-id file in the grant", "params")
def _(p):
    path = f"{p['granted']}/twin-suid"
    with open(path, "wb") as file:
        try:
            os.fchmod(file.fileno(), 0o4755)
            return oct(os.fstat(file.fileno()).st_mode)
        finally:
            os.unlink(path)


# Namespaces and mounts, by ctypes

@attempt(14, "chroot", "os.chroot", "root")
def _(p):
    in_child(lambda: os.chroot("/"))
    return "in another root"


@attempt(15, "mount", "mount(2) by ctypes, in a mount namespace of its own outside", "root+params")
def _(p):
    def work():
        if OUTSIDE:
            call(272, 0x20000)
            call(165, b"none", b"/", 0, 0x44000, 0)
        call(165, b"none", p["granted"].encode(), b"tmpfs", 0, 0)
    in_child(work)
    return "mounted"


@attempt(16, "open-tree", "open_tree(CLONE) by ctypes", "root")
def _(p):
    os.close(call(428, -100, b"/", 1))
    return "a tree of its own"


@attempt(17, "unshare-user", "unshare(CLONE_NEWUSER) by ctypes")
def _(p):
    in_child(lambda: call(272, 0x10000000))
    return "a user namespace"


@attempt(17, "unshare-mount", "unshare(CLONE_NEWNS) by ctypes", "root")
def _(p):
    in_child(lambda: call(272, 0x20000))
    return "a mount namespace"


@attempt(18, "clone3", "clone3 with CLONE_NEWUSER by ctypes")
def _(p):
    args = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, signal.SIGCHLD)
    pid = call(435, args, 88)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "a child in a user namespace"


@attempt(19, "setns", "setns to the namespace of process 1", "root")
def _(p):
    def work():
        fd = os.open("/proc/1/ns/mnt", os.O_RDONLY)
        call(308, fd, 0)
    in_child(work)
    return "in the namespace of process 1"


@attempt(22, "unshare-high", "unshare(CLONE_NEWUSER) with bit 32 set")
def _(p):
    in_child(lambda: call(272, 0x10000000 | 1 << 32))
    return "a user namespace"


@attempt(22, "socket-vsock", "socket(AF_VSOCK) with bit 32 set")
def _(p):
    os.close(call(41, 40 | 1 << 32, 1, 0))
    return "a socket"


@attempt(23, "setup", "io_uring_setup by ctypes")
def _(p):
    os.close(call(425, 4, (ctypes.c_uint32 * 30)()))
    return "a ring"


# Processes

@attempt(26, "attach-host", "PTRACE_ATTACH to the host's process")
def _(p):
    pid, end = victim(p)
    try:
        in_child(lambda: call(101, 16, pid, 0, 0))
        return "attached"
    finally:
        end()


@attempt(26, "readv-host", "process_vm_readv of the host's process")
def _(p):
    pid, end = victim(p)
    try:
        with open(f"/proc/{pid}/maps") as maps:
            start = int(maps.readline().split("-")[0], 16)
        buffer = ctypes.create_string_buffer(16)
        local = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 16)
        remote = (ctypes.c_uint64 * 2)(start, 16)
        return call(310, pid, local, 1, remote, 1, 0)
    finally:
        end()


@attempt(27, "getfd-host", "os.pidfd_open and pidfd_getfd on the host's process")
def _(p):
    pid, end = victim(p)
    try:
        return os.close(call(438, os.pidfd_open(pid), 0, 0)) or "a descriptor of it"
    finally:
        end()


@attempt(28, "kill-host", "os.kill of the host's process")
def _(p):
    pid, end = victim(p)
    try:
        os.kill(pid, signal.SIGKILL)
        return "sent"
    finally:
        end()


# Sockets

@attempt(31, "path", "connect to a Unix socket of the host", "params")
def _(p):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(p["unix_path"])
    return "connected"


@attempt(32, "abstract", "connect to an abstract socket of the host", "params")
def _(p):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\0" + p["abstract"])
    return "connected"


@attempt(35, "packet", "a packet socket", "root")
def _(p):
    socket.socket(17, socket.SOCK_RAW, 0).close()
    return "a socket"


@attempt(35, "raw", "a raw socket", "root")
def _(p):
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()
    return "a socket"


@attempt(35, "netfilter", "nf_tables by netlink")
def _(p):
    socket.socket(16, socket.SOCK_RAW, 12).close()
    return "a socket"


@attempt(36, "tcp4", "TCP to a service of the host", "params")
def _(p):
    socket.create_connection(("127.0.0.1", p["tcp_port"]), timeout=3).close()
    return "connected"


@attempt(36, "udp4", "UDP to a service of the host", "params")
def _(p):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.connect(("127.0.0.1", p["udp_port"]))
        s.send(b"twin")
        s.recv(64)
    return "answered"


@attempt(36, "listen", "listen on a port")
def _(p):
    s = socket.create_server(("127.0.0.1", 0))
    s.close()
    return "listening"


# Keys, programs in the kernel, memory

@attempt(52, "add-key", "add a key to the session's keyring by ctypes")
def _(p):
    key = call(248, b"user", b"palisade-twin", b"x", 1, -3)
    call(250, 3, key)
    return "a key"


@attempt(53, "bpf", "bpf(BPF_MAP_CREATE) by ctypes", "root")
def _(p):
    os.close(call(321, 0, (ctypes.c_uint32 * 18)(2, 4, 4, 1), 72))
    return "a map"


@attempt(53, "userfaultfd", "userfaultfd by ctypes", "root")
def _(p):
    os.close(call(323, 0x80000))
    return "a descriptor"


@attempt(53, "perf", "perf_event_open by ctypes", "root")
def _(p):
    attr = (ctypes.c_uint64 * 16)(1 | 112 << 32, 1)
    os.close(call(298, attr, 0, -1, -1, 0))
    return "a counter"


@attempt(55, "memfd-exec", "os.memfd_create, then execute it")
def _(p):
    fd = os.memfd_create("twin", 0)
    with open("/proc/self/exe", "rb") as own:
        while True:
            part = own.read(1 << 20)
            if not part:
                break
            os.write(fd, part)
    def work():
        pid = os.posix_spawn(f"/proc/self/fd/{fd}", ["twin", "-S", "-c", "0"], {})
        _, status = os.waitpid(pid, 0)
        if status:
            raise Blocked(f"no program ran: {status}")
    in_child(work)
    return "executed"


@attempt(55, "copy-grant", "a copy of the interpreter in the grant", "params")
def _(p):
    path = f"{p['granted']}/twin-python"
    with open("/proc/self/exe", "rb") as own, open(path, "wb") as copy:
        copy.write(own.read())
    os.chmod(path, 0o755)
    try:
        subprocess.run([path, "-S", "-c", "0"], check=True, env={})
        return "executed"
    finally:
        os.unlink(path)


@attempt(55, "shared-object", "load a shared object from the grant", "params")
def _(p):
    import _ctypes
    source = next((l.split()[-1] for l in open("/proc/self/maps") if "libc.so" in l or "libm.so" in l), None)
    if source is None:
        raise Blocked("no shared object to copy")
    path = f"{p['granted']}/twin.so"
    with open(source, "rb") as own, open(path, "wb") as copy:
        copy.write(own.read())
    try:
        _ctypes.dlopen(path, 2)
        return "loaded"
    except OSError as e:
        raise Blocked(str(e)) from None
    finally:
        os.unlink(path)


@attempt(55, "shell", "subprocess with a shell")
def _(p):
    subprocess.run("true", shell=True, check=True)
    return "a shell ran"


@attempt(55, "rwx", "memory that is writable and executable, and run it")
def _(p):
    memory = mmap.mmap(-1, 4096, prot=7)
    memory.write(b"\xb8\x2a\x00\x00\x00\xc3")
    code = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    if code() != 42:
        raise Blocked("it did not run")
    return "made at run time"


@attempt(56, "loader", "variables that change a loader or interpreter")
def _(p):
    if OUTSIDE:
        os.environ["PYTHONPATH"] = "/palisade"
    bad = [n for n in os.environ if n.startswith(("LD_", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "NODE_", "GCONV", "BASH_ENV"))]
    if not bad:
        raise Blocked("none of them")
    return str(bad)


@attempt(57, "environ", "words of the launcher in the environment")
def _(p):
    words = p.get("forbidden_values") or ["x"]
    if OUTSIDE:
        os.environ["WORD"] = words[0]
    text = repr(os.environ)
    if not any(w in text for w in words):
        raise Blocked("none of them")
    return "found"


def make(number, variant, params):
    entry = TABLE.get((number, variant))
    outcome = {"number": number, "variant": variant, "errno": None, "detail": ""}
    if entry is None:
        return {**outcome, "outcome": "impossible", "detail": "no such attempt"}
    try:
        return {**outcome, "outcome": "succeeded", "detail": str(entry[3](params))}
    except Blocked as e:
        return {**outcome, "outcome": "blocked", "detail": str(e)}
    except Killed as e:
        return {**outcome, "outcome": "blocked", "killed": str(e)}
    except OSError as e:
        name = errno.errorcode.get(e.errno) if e.errno else None
        return {**outcome, "outcome": "blocked", "errno": name, "detail": str(e)}
    except subprocess.CalledProcessError as e:
        return {**outcome, "outcome": "blocked", "detail": str(e)}


def serve():
    wire = socket.socket(fileno=3)
    lane = wire.makefile("rb")
    for line in lane:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = {}
        if message["method"] == "initialize":
            result = {"protocol": 1}
        if message["method"] == "call":
            args = message["params"]["args"]
            result = make(args["number"], args["variant"], args["params"])
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        wire.sendall(json.dumps(answer).encode() + b"\n")
        if message["method"] == "shutdown":
            break


if not OUTSIDE:
    serve()
elif sys.argv[1] == "list":
    print(json.dumps([
        {"number": n, "variant": v, "name": name, "control": control, "harmful": harmful, "judge": "attacker"}
        for (n, v), (name, control, harmful, _) in TABLE.items()]))
else:
    print(json.dumps(make(int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[5]))))
