/* The plugin that the benches run: static, no interpreter, as little work of its own as possible.
 *
 * Without arguments: speaks Palisade's wire on handle 3, one thread, blocking. It answers `initialize`, and
 * each `call` with the value of `args`. It reads only what Palisade's own encoder writes ("id" and
 * "method" before "params", "args" last); a plugin for use would have a JSON parser.
 * `first-byte`: writes one byte to stdout and ends; this is what is run under bwrap.
 * `echo`: sends back what it reads on handle 0, byte for byte: the raw ping-pong.
 * `wire`: as without arguments, but on handle 0, for a peer without walls.
 */
#include <string.h>
#include <unistd.h>

static char in[1 << 20];
static char out[1 << 20];
static int lane = 3;

static void send_all(const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t n = write(lane, bytes, count);
        if (n <= 0) _exit(1);
        bytes += n;
        count -= (size_t)n;
    }
}

static char *append(char *to, const char *from, size_t count) {
    memcpy(to, from, count);
    return to + count;
}

/* What stands between `name` and the end of the value: a comma for an id, the closing braces for args. */
static void answer(char *line, size_t length) {
    static const char id_key[] = "\"id\":", args_key[] = "\"args\":";
    line[length] = 0;
    char *id = strstr(line, id_key);
    if (!id) return; /* a notification */
    id += sizeof id_key - 1;
    size_t id_length = strcspn(id, ",}");
    char *end = append(out, "{\"jsonrpc\":\"2.0\",\"id\":", 22);
    end = append(end, id, id_length);
    end = append(end, ",\"result\":", 10);
    char *args = strstr(line, args_key);
    if (args) {
        args += sizeof args_key - 1;
        end = append(end, args, (size_t)(line + length - args) - 2);
    } else {
        end = append(end, "{\"protocol\":1}", 14);
    }
    end = append(end, "}\n", 2);
    send_all(out, (size_t)(end - out));
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "first-byte") == 0) return write(1, "x", 1) != 1;
    if (argc > 1) lane = 0;
    if (argc > 1 && strcmp(argv[1], "echo") == 0) {
        for (;;) {
            ssize_t n = read(lane, in, sizeof in);
            if (n <= 0) return 0;
            send_all(in, (size_t)n);
        }
    }
    size_t have = 0;
    for (;;) {
        ssize_t n = read(lane, in + have, sizeof in - 1 - have);
        if (n <= 0) return 0;
        have += (size_t)n;
        char *line = in, *newline;
        while ((newline = memchr(line, '\n', have - (size_t)(line - in)))) {
            answer(line, (size_t)(newline - line));
            line = newline + 1;
        }
        have -= (size_t)(line - in);
        memmove(in, line, have);
    }
}
