/* SHA-256 as a plugin: Palisade's protocol on handle 3, one JSON-RPC message a line.
 *
 * One request at a time, answered in order; blocking reads and writes. JSON is read in place by a small
 * scanner that follows RFC 8259 and fails on everything else. The host bounds a line to 4 MiB.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LANE = 3, LINE = 4 << 20, DEPTH = 64 };

/* ---- SHA-256 (FIPS 180-4) ---- */

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(uint32_t state[8], const uint8_t *block) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] +
               (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t e = s[4], a = s[0];
        uint32_t t = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
                     ((e & s[5]) ^ (~e & s[6])) + K[i] + w[i];
        uint32_t u = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
                     ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t;
        s[0] = t + u;
    }
    for (int i = 0; i < 8; i++) state[i] += s[i];
}

static void sha256(const uint8_t *text, size_t length, char hex[64]) {
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    size_t left = length;
    for (; left >= 64; left -= 64, text += 64) sha256_block(state, text);
    uint8_t tail[128] = {0};
    memcpy(tail, text, left);
    tail[left] = 0x80;
    size_t end = left < 56 ? 64 : 128;
    uint64_t bits = (uint64_t)length * 8;
    for (int i = 0; i < 8; i++) tail[end - 1 - i] = (uint8_t)(bits >> (8 * i));
    for (size_t at = 0; at < end; at += 64) sha256_block(state, tail + at);
    for (int i = 0; i < 64; i++) hex[i] = "0123456789abcdef"[state[i / 8] >> (28 - 4 * (i % 8)) & 15];
}

/* ---- JSON, read in place. A position that is NULL means "not JSON". ---- */

typedef struct {
    const char *at, *end;
} Span;

static const char *value_end(const char *p, const char *end, int depth);

static const char *space(const char *p, const char *end) {
    while (p && p < end && (*p == ' ' || *p == '\t' || *p == '\r')) p++;
    return p;
}

/* After the closing quote of the string that begins at p. Escapes are checked when they are decoded. */
static const char *string_end(const char *p, const char *end) {
    if (!p || p >= end || *p++ != '"') return NULL;
    for (; p < end; p++) {
        if (*p == '"') return p + 1;
        if ((unsigned char)*p < 0x20) return NULL;
        if (*p == '\\' && ++p >= end) return NULL;
    }
    return NULL;
}

static int is_digit(const char *p, const char *end) { return p < end && *p >= '0' && *p <= '9'; }

static const char *number_end(const char *p, const char *end) {
    if (p < end && *p == '-') p++;
    if (!is_digit(p, end)) return NULL;
    if (*p == '0') p++;
    else while (is_digit(p, end)) p++;
    if (p < end && *p == '.') {
        if (!is_digit(++p, end)) return NULL;
        while (is_digit(p, end)) p++;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        if (!is_digit(p, end)) return NULL;
        while (is_digit(p, end)) p++;
    }
    return p;
}

/* Steps through an object or array that begins at `start`, where `*next` is at first. For an object `key` is
 * set. Returns the value's span, its `at` being NULL at the end or on an error; `*next` is then after the
 * closing bracket, or NULL. */
static Span step(const char *start, const char **next, const char *end, int depth, Span *key) {
    int first = *next == start;
    const char *p = space(*next, end);
    Span none = {NULL, NULL};
    *next = NULL;
    if (!p || p >= end || depth > DEPTH) return none;
    char open = *start, close = open == '{' ? '}' : ']';
    if (!first && *p != ',' && *p != close) return none;
    if (!first && *p == close) {
        *next = p + 1;
        return none;
    }
    p = space(p + 1, end);
    if (first && p < end && *p == close) {
        *next = p + 1;
        return none;
    }
    if (open == '{') {
        key->at = p;
        p = key->end = string_end(p, end);
        p = space(p, end);
        if (!p || p >= end || *p++ != ':') return none;
        p = space(p, end);
    }
    Span value = {p, value_end(p, end, depth + 1)};
    if (!value.end) return none;
    *next = value.end;
    return value;
}

static const char *value_end(const char *p, const char *end, int depth) {
    if (!p || p >= end || depth > DEPTH) return NULL;
    if (*p == '"') return string_end(p, end);
    if (*p == '{' || *p == '[') {
        const char *next = p;
        Span key;
        while (step(p, &next, end, depth, &key).at) {}
        return next;
    }
    static const char *words[] = {"true", "false", "null"};
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(end - p) >= n && memcmp(p, words[i], n) == 0) return p + n;
    }
    return number_end(p, end);
}

static int is(Span s, const char *text) {
    size_t n = strlen(text);
    return s.at && (size_t)(s.end - s.at) == n && memcmp(s.at, text, n) == 0;
}

/* The member of `object` with this name (given with its quotes); the last one if it stands twice. */
static Span member(Span object, const char *name) {
    Span found = {NULL, NULL}, key, value;
    if (!object.at || *object.at != '{') return found;
    const char *next = object.at;
    while ((value = step(object.at, &next, object.end, 0, &key)).at)
        if (is(key, name)) found = value;
    return found;
}

static int hex4(const char *p, const char *end, uint32_t *out) {
    if (end - p < 4) return 0;
    *out = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return 0;
        *out = *out << 4 | (uint32_t)digit;
    }
    return 1;
}

static size_t utf8(uint32_t c, uint8_t *out) {
    if (c < 0x80) return out[0] = (uint8_t)c, 1;
    if (c < 0x800) return out[0] = (uint8_t)(0xc0 | c >> 6), out[1] = (uint8_t)(0x80 | (c & 63)), 2;
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12), out[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        return out[2] = (uint8_t)(0x80 | (c & 63)), 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18), out[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    return out[3] = (uint8_t)(0x80 | (c & 63)), 4;
}

/* Decodes the string `s` (with its quotes) into `out`, which has room for it: no escape is shorter than
 * what it stands for. Returns the length, or -1. */
static long decode(Span s, uint8_t *out) {
    if (!s.at || *s.at != '"') return -1;
    uint8_t *o = out;
    const char *end = s.end - 1;
    for (const char *p = s.at + 1; p < end;) {
        if (*p != '\\') {
            *o++ = (uint8_t)*p++;
            continue;
        }
        static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
        char kind = p[1];
        p += 2;
        const char *known = kind ? strchr(names, kind) : NULL;
        if (known) {
            *o++ = (uint8_t)meanings[known - names];
            continue;
        }
        uint32_t unit, low;
        if (kind != 'u' || !hex4(p, end, &unit)) return -1;
        p += 4;
        if (unit >= 0xdc00 && unit < 0xe000) return -1;
        if (unit >= 0xd800 && unit < 0xdc00) {
            if (end - p < 6 || p[0] != '\\' || p[1] != 'u' || !hex4(p + 2, end, &low)) return -1;
            if (low < 0xdc00 || low >= 0xe000) return -1;
            unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        }
        o += utf8(unit, o);
    }
    return o - out;
}

/* ---- The plugin ---- */

static char line[LINE + 1];
static uint8_t text[LINE];
static char reply[512];

static void send_all(const char *p, size_t n) {
    while (n > 0) {
        ssize_t done = write(LANE, p, n);
        if (done <= 0) _exit(1);
        p += done;
        n -= (size_t)done;
    }
}

static void answer(Span id, const char *member_name, const char *value) {
    static const char head[] = "{\"jsonrpc\":\"2.0\",\"id\":";
    size_t n = sizeof head - 1, parts[3] = {(size_t)(id.end - id.at), strlen(member_name), strlen(value)};
    if (n + parts[0] + parts[1] + parts[2] + 2 > sizeof reply) _exit(1);
    memcpy(reply, head, n);
    const char *from[3] = {id.at, member_name, value};
    for (int i = 0; i < 3; i++) {
        memcpy(reply + n, from[i], parts[i]);
        n += parts[i];
    }
    reply[n++] = '}';
    reply[n++] = '\n';
    send_all(reply, n);
}

static void result(Span id, const char *value) { answer(id, ",\"result\":", value); }
static void error(Span id, const char *value) { answer(id, ",\"error\":", value); }

static long whole_number(Span s) {
    long value = 0;
    if (!s.at || s.end == s.at || s.end - s.at > 9) return -1;
    for (const char *p = s.at; p < s.end; p++) {
        if (*p < '0' || *p > '9') return -1;
        value = value * 10 + (*p - '0');
    }
    return value;
}

static void call(Span id, Span params) {
    if (!is(member(params, "\"tool\""), "\"sha256\"")) {
        error(id, "{\"code\":-32601,\"message\":\"the only tool is sha256\"}");
        return;
    }
    long length = decode(member(member(params, "\"args\""), "\"text\""), text);
    if (length < 0) {
        error(id, "{\"code\":-32602,\"message\":\"text is missing or is not a string\"}");
        return;
    }
    char out[sizeof "{\"sha256\":\"\"}" + 64] = "{\"sha256\":\"";
    sha256(text, (size_t)length, out + 11);
    memcpy(out + 75, "\"}", 3);
    result(id, out);
}

static void handle(const char *from, const char *to) {
    Span message = {space(from, to), to};
    const char *end = value_end(message.at, to, 0);
    if (!end || space(end, to) != to) _exit(1); /* The host sends no such line. */
    Span id = member(message, "\"id\""), method = member(message, "\"method\"");
    if (!id.at || !method.at) return; /* A notification, or an answer to a request never made. */
    Span params = member(message, "\"params\"");
    if (is(method, "\"call\"")) {
        call(id, params);
    } else if (is(method, "\"initialize\"")) {
        Span offer = member(params, "\"protocol\"");
        long min = whole_number(member(offer, "\"min\"")), max = whole_number(member(offer, "\"max\""));
        if (0 <= min && min <= 1 && 1 <= max)
            result(id, "{\"protocol\":1,\"plugin\":{\"name\":\"checksum\",\"version\":\"1.0.0\"}}");
        else
            error(id, "{\"code\":-32602,\"message\":\"speaks version 1 of the protocol\"}");
    } else if (is(method, "\"ping\"")) {
        result(id, "{}");
    } else if (is(method, "\"shutdown\"")) {
        result(id, "{}");
        _exit(0);
    } else {
        error(id, "{\"code\":-32601,\"message\":\"no such method\"}");
    }
}

int main(void) {
    size_t have = 0, searched = 0;
    for (;;) {
        ssize_t got = read(LANE, line + have, sizeof line - have);
        if (got <= 0) return got < 0; /* The host has closed its end. */
        have += (size_t)got;
        char *start = line, *newline;
        while ((newline = memchr(start + searched, '\n', (size_t)(line + have - start) - searched))) {
            handle(start, newline);
            start = newline + 1;
            searched = 0;
        }
        have = (size_t)(line + have - start);
        if (have == sizeof line) return 1; /* A line beyond the bound. */
        memmove(line, start, have);
        searched = have;
    }
}
