/* The client of the egress bench: static and freestanding, blocking, one thread. It reads commands from
 * handle 0, one a line, and answers each on handle 1 with "FIRST TOTAL BYTES": nanoseconds from before the
 * connection to the first byte of the answer's body and to the end of the connection, and the bytes that
 * came, heads included.
 *   d PORT LENGTH   a GET to 127.0.0.1:PORT
 *   c PORT LENGTH   the same in a tunnel: CONNECT at 127.0.0.1:3128
 *   p PORT LENGTH   the same as a plain request to that proxy
 */
typedef unsigned long size_t;

#if defined(__x86_64__)
enum { NR_READ = 0, NR_WRITE = 1, NR_CLOSE = 3, NR_SOCKET = 41, NR_CONNECT = 42, NR_TIME = 228, NR_EXIT = 231 };
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}
__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %rsp\n call start\n");
#elif defined(__aarch64__)
enum { NR_READ = 63, NR_WRITE = 64, NR_CLOSE = 57, NR_SOCKET = 198, NR_CONNECT = 203, NR_TIME = 113, NR_EXIT = 94 };
static long call(long number, long a, long b, long c) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b,
                     x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
__asm__(".globl _start\n_start: mov x29, #0\n bl start\n");
#endif

/* What a client with a large buffer reads at once. */
static char buffer[256 << 10];
static char line[256];
static char said[512];

static void leave(int status) {
    call(NR_EXIT, status, 0, 0);
    __builtin_unreachable();
}

/* The compiler may ask for these by name. */
void *memcpy(void *to, const void *from, size_t count) {
    char *t = to;
    const char *f = from;
    while (count--) *t++ = *f++;
    return to;
}

void *memset(void *to, int byte, size_t count) {
    char *t = to;
    while (count--) *t++ = (char)byte;
    return to;
}

static unsigned long now(void) {
    long time[2];
    call(NR_TIME, 1, (long)time, 0);
    return (unsigned long)time[0] * 1000000000ul + (unsigned long)time[1];
}

static char *text(char *to, const char *from) {
    while (*from) *to++ = *from++;
    return to;
}

static char *digits(char *to, unsigned long value) {
    char reversed[20];
    int count = 0;
    do {
        reversed[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (count) *to++ = reversed[--count];
    return to;
}

static unsigned long number(char **at) {
    unsigned long value = 0;
    while (**at == ' ') ++*at;
    while (**at >= '0' && **at <= '9') value = value * 10 + (unsigned long)(*(*at)++ - '0');
    return value;
}

static void send_all(int fd, const char *bytes, size_t count) {
    while (count > 0) {
        long n = call(NR_WRITE, fd, (long)bytes, (long)count);
        if (n <= 0) leave(3);
        bytes += n;
        count -= (size_t)n;
    }
}

static int dial(unsigned long port) {
    unsigned char address[16] = {2, 0, (unsigned char)(port >> 8), (unsigned char)port, 127, 0, 0, 1};
    long fd = call(NR_SOCKET, 2, 1, 0);
    if (fd < 0 || call(NR_CONNECT, fd, (long)address, sizeof address) < 0) leave(4);
    return (int)fd;
}

/* Reads until the empty line that ends a head; how many bytes came behind it. */
static size_t head(int fd, size_t *all) {
    size_t have = 0;
    for (;;) {
        long n = call(NR_READ, fd, (long)(buffer + have), (long)(sizeof buffer - have));
        if (n <= 0) leave(5);
        *all += (size_t)n;
        have += (size_t)n;
        for (size_t i = 3; i < have; i++) {
            if (buffer[i - 3] == '\r' && buffer[i - 2] == '\n' && buffer[i - 1] == '\r' && buffer[i] == '\n') {
                /* "HTTP/1.1 200" */
                if (buffer[9] != '2') leave(6);
                return have - i - 1;
            }
        }
    }
}

static void download(char how, unsigned long port, unsigned long length) {
    size_t all = 0;
    unsigned long begin = now(), first;
    int fd = dial(how == 'd' ? port : 3128);
    if (how == 'c') {
        char *end = digits(text(said, "CONNECT 127.0.0.1:"), port);
        end = text(end, " HTTP/1.1\r\n\r\n");
        send_all(fd, said, (size_t)(end - said));
        size_t none = 0;
        if (head(fd, &none) != 0) leave(7);
    }
    char *end = text(said, "GET ");
    if (how == 'p') end = digits(text(end, "http://127.0.0.1:"), port);
    end = digits(text(end, "/"), length);
    end = digits(text(end, " HTTP/1.1\r\nHost: 127.0.0.1:"), port);
    end = text(end, "\r\nConnection: close\r\n\r\n");
    send_all(fd, said, (size_t)(end - said));
    size_t more = head(fd, &all);
    if (more == 0) {
        long n = call(NR_READ, fd, (long)buffer, sizeof buffer);
        if (n <= 0) leave(8);
        all += (size_t)n;
    }
    first = now();
    for (;;) {
        long n = call(NR_READ, fd, (long)buffer, sizeof buffer);
        if (n < 0) leave(9);
        if (n == 0) break;
        all += (size_t)n;
    }
    unsigned long last = now();
    call(NR_CLOSE, fd, 0, 0);
    end = digits(said, first - begin);
    end = digits(text(end, " "), last - begin);
    end = digits(text(end, " "), all);
    end = text(end, "\n");
    send_all(1, said, (size_t)(end - said));
}

__attribute__((used)) void start(void) {
    size_t have = 0;
    for (;;) {
        if (have == sizeof line - 1) leave(2);
        long n = call(NR_READ, 0, (long)(line + have), 1);
        if (n <= 0) leave(0);
        if (line[have++] != '\n') continue;
        line[have - 1] = 0;
        char *at = line + 1;
        unsigned long port = number(&at);
        download(line[0], port, number(&at));
        have = 0;
    }
}
