# Hosts that take no care: the positive controls of what is attempted against ours. Each does what a program does whose
# author has not thought of it, and says by its exit status whether that was enough for the attempt (0: it works).

import fcntl, fnmatch, hashlib, json, os, re, select, signal, socket, subprocess, sys, time


def handshake(attacker, mode):
    """Takes whatever comes first for the answer, and has waited in vain where nothing comes within a second."""
    ours, theirs = (fcntl.fcntl(end.detach(), fcntl.F_DUPFD_CLOEXEC, 10) for end in socket.socketpair())
    os.dup2(theirs, 3)
    os.close(theirs)
    plugin = subprocess.Popen([attacker, "plugin", "--handshake=" + mode], pass_fds=[3], stdin=subprocess.DEVNULL)
    os.close(3)
    lane = os.fdopen(ours, "r+b", buffering=0)
    rest = b""

    def line():
        nonlocal rest
        while b"\n" not in rest and select.select([lane], [], [], 1)[0]:
            more = lane.read(65536)
            if not more:
                break
            rest += more
        taken, _, rest = rest.partition(b"\n")
        return taken

    is_fooled = False
    for number, method in [(1, "initialize"), (2, "ping")]:
        question = {"jsonrpc": "2.0", "id": number, "method": method, "params": {"protocol": {"min": 1, "max": 1}}}
        lane.write(json.dumps(question).encode() + b"\n")
        try:
            taken = json.loads(line())
        except ValueError:
            taken = None
        is_fooled |= not (
            isinstance(taken, dict)
            and set(taken) == {"jsonrpc", "id", "result"}
            and taken["id"] == number
            and not isinstance(taken["id"], str)
        )
    plugin.kill()
    plugin.wait()
    return is_fooled


def manifest(folder):
    with open(folder + "/plugin.yaml", encoding="utf-8") as file:
        text = file.read()
    return re.search("^id: (.*)$", text, re.M)[1], re.findall("capability: '([^']*)'", text)


def name(kind, folder):
    return {
        "id": lambda: manifest(folder)[0],
        "file name of the id": lambda: manifest(folder)[0].lower(),
        "folder": lambda: os.path.abspath(folder),
    }[kind]()


def agree(kind, folder):
    """The person has read what the plugin asks for, and says yes."""
    with open("agreed", "w", encoding="utf-8") as file:
        file.write(name(kind, folder))
    return True


def call(kind, folder, path, *granted):
    """Whoever was agreed to does what it asks for now, or what was granted; patterns match as in a shell."""
    with open("agreed", encoding="utf-8") as file:
        if file.read() != name(kind, folder):
            return False
    rights = granted or manifest(folder)[1]
    return any(fnmatch.fnmatchcase("fs.read:" + path, right) for right in rights) and bool(open(path).read())


def late(done, log):
    """Acts, and writes it down afterwards."""
    open(done, "w").close()
    time.sleep(60)
    with open(log, "a", encoding="utf-8") as file:
        file.write("done\n")
    return False


def look(path):
    """Reads the program before it starts it, and is held up by what never ends."""

    def ring(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(1)
    try:
        open(path, "rb").read()
    except TimeoutError:
        return True
    return False


def start(program, other, place, when):
    """Compares the program with what was agreed to, and then starts it by its path. The other file comes to its place
    before it looks, or after."""

    def digest():
        with open(program, "rb") as file:
            return hashlib.sha256(file.read()).digest()

    agreed = digest()
    if when == "before":
        os.replace(other, place)
    if digest() != agreed:
        return False
    if when == "after":
        os.replace(other, place)
    return b"swapped" in subprocess.run([sys.executable, program], capture_output=True).stdout


does = {f.__name__: f for f in (handshake, agree, call, late, look, start)}[sys.argv[1]]
sys.exit(0 if does(*sys.argv[2:]) else 1)
