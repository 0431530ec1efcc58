/* Writes one line to stdout and ends: what is started on every side of `launch_vs_srt`. Static and without a
 * C library, as plugin.c is and for the same reason.
 */
#if defined(__x86_64__)
enum { NR_WRITE = 1, NR_EXIT = 231 };
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
enum { NR_WRITE = 64, NR_EXIT = 94 };
static long call(long number, long a, long b, long c) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b,
                     x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
__asm__(".globl _start\n_start: mov x29, #0\n bl start\n");
#endif

__attribute__((used)) void start(void) {
    static const char line[] = "line\n";
    call(NR_EXIT, call(NR_WRITE, 1, (long)line, 5) != 5, 0, 0);
    __builtin_unreachable();
}
