//! Attempts 33, 34, 47, 58 and 59: abusing the channel and the log streams.
//!
//! A descriptor counts as swallowed when the host still holds it a while after it was sent: every
//! message carries the write end of a pipe as a tracer, and its closing is seen on the read end.
//! Outside, a child that reads and drops everything (or nothing) takes the host's place.

use crate::outcome::{At, Attempted, Errno, Outcome, Sys, blocked, succeeded};
use crate::sys::{self, close};
use crate::table::{Attempt, Control, Ctx, contains};
use crate::wire;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(33, "received", "descriptors that came over the channel unasked", Control::Run, &["ms"], received),
    Attempt::new(34, "file", "send a plain file", Control::Run, &["ms", "frame"], |x| bomb(x, |_| sys::open("/proc/self/exe", libc::O_RDONLY, 0))),
    Attempt::new(34, "directory", "send a directory", Control::Run, &["ms", "frame"], |x| bomb(x, |_| sys::open("/tmp", libc::O_RDONLY | libc::O_DIRECTORY, 0))),
    Attempt::new(34, "path", "send an O_PATH handle", Control::Run, &["ms", "frame"], |x| bomb(x, |_| sys::open("/", libc::O_PATH, 0))),
    Attempt::new(34, "device", "send /dev/zero", Control::Run, &["ms", "frame"], |x| bomb(x, |_| sys::open("/dev/zero", libc::O_RDWR, 0))),
    Attempt::new(34, "memfd-unsealed", "send a memfd without seals", Control::Run, &["ms", "frame"], |x| bomb(x, |_| memfd(65_536))),
    Attempt::new(34, "socket", "send a Unix socket", Control::Run, &["ms", "frame"], |x| bomb(x, |_| sys::socketpair().map(|p| p.0))),
    Attempt::new(34, "epoll", "send an epoll descriptor", Control::Run, &["ms", "frame"], |x| bomb(x, |_| fd(sys!(libc::SYS_epoll_create1, libc::O_CLOEXEC)))),
    Attempt::new(34, "eventfd", "send an eventfd", Control::Run, &["ms", "frame"], |x| bomb(x, |_| fd(sys!(libc::SYS_eventfd2, 0, libc::O_CLOEXEC)))),
    Attempt::new(34, "pidfd", "send a pidfd", Control::Run, &["ms", "frame"], |x| bomb(x, |_| fd(sys!(libc::SYS_pidfd_open, sys::pid(), 0)))),
    Attempt::new(34, "cycle", "send a Unix socket that holds itself in its queue", Control::Run, &["ms", "frame"], |x| bomb(x, |_| cycle())),
    Attempt::new(34, "many", "send 253 descriptors at once", Control::Run, &["ms", "frame"], many),
    Attempt::new(34, "flood", "send 253 descriptors, 16 times", Control::Run, &["ms", "frame"], flood),
    Attempt::new(34, "mid-frame", "attach a descriptor to the middle of a frame", Control::Run, &["ms"], mid_frame),
    Attempt::new(58, "shrink", "send a memfd, then shrink it", Control::Run, &["ms", "frame"], shrink),
    Attempt::new(58, "mutate", "send a memfd and go on changing it", Control::Run, &["ms", "frame"], mutate),
    Attempt::new(47, "log-stdout", "flood stdout", Control::Run, &["bytes", "seconds"], |x| log_flood(x, 1, false)).host_judges(),
    Attempt::new(47, "log-stderr", "flood stderr", Control::Run, &["bytes", "seconds"], |x| log_flood(x, 2, false)).host_judges(),
    Attempt::new(47, "log-line", "one endless line on stderr", Control::Run, &["bytes", "seconds"], |x| log_flood(x, 2, true)).host_judges(),
    Attempt::new(47, "endless-line", "one endless line on the channel", Control::Run, &["bytes", "seconds"], endless_line),
    Attempt::new(47, "long-string", "one valid frame with a string of `bytes`", Control::Run, &["bytes", "seconds"], long_string),
    Attempt::new(47, "half-frame", "half a frame, then silence", Control::Run, &["seconds"], half_frame).host_judges(),
    Attempt::new(47, "never-read", "answer nothing and read nothing", Control::Run, &["seconds"], never_read).host_judges(),
    Attempt::new(47, "slow-drip", "a frame of one byte every 100 ms", Control::Run, &["seconds"], slow_drip).host_judges(),
    Attempt::new(47, "notifications", "flood of notifications", Control::Run, &["count", "seconds", "frame"], notifications).host_judges(),
    Attempt::new(47, "requests", "flood of requests to the host, answers never read", Control::Run, &["count", "seconds"], requests).host_judges(),
    Attempt::new(47, "nul", "NUL bytes between frames", Control::Run, &[], |x| garbage(x, b"\0\0\0\0\n")).host_judges(),
    Attempt::new(47, "utf8", "bytes that are not UTF-8", Control::Run, &[], |x| garbage(x, b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\xfe\xc0\x80\"}\n")).host_judges(),
    Attempt::new(47, "binary-length", "a 4 GiB length in front, as other framings have it", Control::Run, &[], |x| garbage(x, b"\xff\xff\xff\xff{}\nContent-Length: 4294967296\r\n\r\n\n")).host_judges(),
    Attempt::new(47, "nesting", "100000 levels of nesting", Control::Run, &[], |x| garbage(x, &[b"[".repeat(100_000), b"\n".to_vec()].concat())).host_judges(),
    Attempt::new(47, "number", "a number of 100000 digits", Control::Run, &[], |x| garbage(x, &[b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec(), b"9".repeat(100_000), b"}\n".to_vec()].concat())).host_judges(),
    Attempt::new(47, "duplicate-keys", "a frame whose keys come twice", Control::Run, &[], |x| garbage(x, b"{\"jsonrpc\":\"2.0\",\"id\":7,\"id\":1,\"result\":{},\"result\":{\"a\":1}}\n")).host_judges(),
    Attempt::new(47, "batch", "a batch of 10000 messages", Control::Run, &[], |x| garbage(x, &[b"[".to_vec(), b"{\"jsonrpc\":\"2.0\",\"method\":\"log\"},".repeat(10_000), b"1]\n".to_vec()].concat())).host_judges(),
    Attempt::new(47, "empty-lines", "100000 empty lines", Control::Run, &[], |x| garbage(x, &b"\n".repeat(100_000))).host_judges(),
    Attempt::new(59, "second-initialize", "answer initialize once more, with another name", Control::Run, &[], |x| garbage(x, line(&hello(&json!(1), json!(1), "somebody-else")).as_bytes())).host_judges(),
    Attempt::new(59, "replayed-id", "answer an old id again", Control::Run, &[], |x| garbage(x, b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"forged\":true}}\n")).host_judges(),
    Attempt::new(59, "future-ids", "answer ids that were never asked", Control::Run, &[], future_ids).host_judges(),
    Attempt::new(59, "twice", "answer this call twice", Control::Run, &[], twice).host_judges(),
    Attempt::new(59, "host-initialize", "ask the host to initialize", Control::Run, &["method", "request"], |x| request(x, "initialize")),
    Attempt::new(59, "request", "any request to the host (`method`, `request`)", Control::Channel, &["method!", "request"], |x| request(x, x.need("method")?)),
    Attempt::new(59, "handshake", "the modes of --handshake=MODE (see the source of `initialize`)", Control::None("made while the plugin starts; the host judges"), &[], |_| Ok(blocked(None, "start with --handshake=MODE"))).host_judges(),
];

fn hello(id: &Value, protocol: Value, name: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {
        "protocol": protocol, "plugin": {"name": name, "version": "0.1.0"}}})
}

fn line(message: &Value) -> String {
    format!("{message}\n")
}

/// Answers `initialize` honestly, or in one of the ways of attempt 59.
pub fn initialize(id: &Value, params: &Value, mode: &str) {
    let honest = hello(id, json!(1), "attacker");
    let asked = params["protocol"]["max"].as_u64().unwrap_or(1);
    match mode {
        "wrong-version" => wire::send(&hello(id, json!(asked + 999), "attacker")),
        "zero-version" => wire::send(&hello(id, json!(0), "attacker")),
        "text-version" => wire::send(&hello(id, json!("1"), "attacker")),
        "other-name" => wire::send(&hello(id, json!(1), "somebody-else")),
        "no-result" => wire::send(&json!({"jsonrpc": "2.0", "id": id})),
        "both" => wire::send(&json!({"jsonrpc": "2.0", "id": id, "result": honest["result"],
            "error": {"code": 1, "message": "both"}})),
        "error" => wire::send(&json!({"jsonrpc": "2.0", "id": id,
            "error": {"code": -32000, "message": "no"}})),
        "wrong-id" => wire::send(&hello(&json!(4242), json!(1), "attacker")),
        "text-id" => wire::send(&hello(&json!(id.to_string()), json!(1), "attacker")),
        "null-id" => wire::send(&hello(&Value::Null, json!(1), "attacker")),
        "double-reply" => {
            wire::send(&honest);
            wire::send(&hello(id, json!(1), "somebody-else"));
        }
        "no-jsonrpc" => wire::send(&json!({"id": id, "result": honest["result"]})),
        "early-request" => {
            wire::send(&json!({"jsonrpc": "2.0", "id": 1, "method": "storage.get", "params": {}}));
            wire::send(&honest);
        }
        "garbage-first" => {
            write(b"\x1b[2Jnot json\n");
            wire::send(&honest);
        }
        "silent" => {}
        "exit" => sys::exit(0),
        _ => wire::send(&honest),
    }
}

fn write(bytes: &[u8]) {
    let _ = sys::write_all(3, bytes, Instant::now() + Duration::from_secs(5));
}

fn fd(result: Sys) -> Sys<i32> {
    result.map(|fd| fd as i32)
}

fn memfd(size: u64) -> Sys<i32> {
    // MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL, as a strict filter asks for.
    let memfd = fd(sys!(libc::SYS_memfd_create, c"bomb".as_ptr(), 1 | 2 | 8))?;
    sys!(libc::SYS_ftruncate, memfd, size)?;
    Ok(memfd)
}

/// A socket whose receive queue holds the socket itself.
fn cycle() -> Sys<i32> {
    let (a, b) = sys::socketpair()?;
    send_fds(a, &[b], b"x")?;
    send_fds(b, &[a], b"x")?;
    close(a);
    Ok(b)
}

/// One `sendmsg` with descriptors; does not wait.
pub fn send_fds(socket: i32, fds: &[i32], payload: &[u8]) -> Sys {
    let mut control = vec![0u64; 256];
    let mut iov =
        libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    // SAFETY: the control buffer has room for 253 descriptors; header and payload are live.
    unsafe {
        let bytes = size_of_val(fds) as u32;
        let mut msg: libc::msghdr = std::mem::zeroed();
        msg.msg_iov = &mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = control.as_mut_ptr().cast();
        msg.msg_controllen = libc::CMSG_SPACE(bytes) as _;
        let cmsg = libc::CMSG_FIRSTHDR(&msg);
        (*cmsg).cmsg_level = libc::SOL_SOCKET;
        (*cmsg).cmsg_type = libc::SCM_RIGHTS;
        (*cmsg).cmsg_len = libc::CMSG_LEN(bytes) as _;
        std::ptr::copy_nonoverlapping(fds.as_ptr(), libc::CMSG_DATA(cmsg).cast::<i32>(), fds.len());
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        sys!(libc::SYS_sendmsg, socket, &raw const msg, flags)
    }
}

/// The channel inside; outside a socket whose other end is never read.
struct Line {
    socket: i32,
    other: Option<i32>,
}

impl Line {
    fn open(ctx: &Ctx) -> Result<Self, Outcome> {
        if !ctx.outside() {
            return ctx.need_channel().map(|socket| Self { socket, other: None });
        }
        let (socket, other) = sys::socketpair().setup("socket pair")?;
        Ok(Self { socket, other: Some(other) })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(other) = self.other {
            close(self.socket);
            close(other);
        }
    }
}

/// A frame that is harmless in itself.
fn frame(ctx: &Ctx) -> Vec<u8> {
    let default =
        r#"{"jsonrpc":"2.0","method":"log","params":{"level":"info","message":"handle"}}"#;
    format!("{}\n", ctx.text("frame").unwrap_or(default)).into_bytes()
}

/// Whether the host still holds what was sent with the tracer, `ms` after (default 1000).
fn judge_tracer(ctx: &Ctx, reader: i32, what: &str) -> Attempted {
    let wait = Duration::from_millis(ctx.num("ms", 1000).min(10_000));
    let begun = Instant::now();
    let dropped = sys::poll(reader, libc::POLLIN, wait);
    close(reader);
    if dropped {
        return Ok(blocked(
            None,
            format!("{what}: closed by the host within {} ms", wait.as_millis()),
        ));
    }
    Ok(succeeded(format!("{what}: the host holds it after {} ms", begun.elapsed().as_millis())))
}

/// Sends one odd descriptor and a tracer.
fn bomb(ctx: &Ctx, make: impl FnOnce(&Ctx) -> Sys<i32>) -> Attempted {
    let line = Line::open(ctx)?;
    let odd = make(ctx).at("make the descriptor")?;
    let (reader, tracer) = sys::pipe().setup("pipe")?;
    let sent = send_fds(line.socket, &[odd, tracer], &frame(ctx));
    close(odd);
    close(tracer);
    sent.at("sendmsg")?;
    judge_tracer(ctx, reader, "descriptor")
}

fn many(ctx: &Ctx) -> Attempted {
    let line = Line::open(ctx)?;
    let (reader, tracer) = sys::pipe().setup("pipe")?;
    let sent = send_fds(line.socket, &[tracer; 253], &frame(ctx));
    close(tracer);
    sent.at("sendmsg")?;
    judge_tracer(ctx, reader, "253 descriptors")
}

fn flood(ctx: &Ctx) -> Attempted {
    let line = Line::open(ctx)?;
    let (reader, tracer) = sys::pipe().setup("pipe")?;
    let mut sent = Ok(0);
    let mut messages = 0;
    while messages < 16 && sent.is_ok() {
        sent = send_fds(line.socket, &[tracer; 253], &frame(ctx));
        messages += i32::from(sent.is_ok());
    }
    close(tracer);
    if messages == 0 {
        sent.at("sendmsg")?;
    }
    judge_tracer(ctx, reader, &format!("{messages} messages of 253 descriptors"))
}

fn mid_frame(ctx: &Ctx) -> Attempted {
    let line = Line::open(ctx)?;
    let (reader, tracer) = sys::pipe().setup("pipe")?;
    let text = frame(ctx);
    let (head, tail) = text.split_at(text.len() / 2);
    let end = Instant::now() + Duration::from_secs(2);
    sys::write_all(line.socket, head, end).map_err(|e| e.0).at("write")?;
    let sent = send_fds(line.socket, &[tracer], tail);
    close(tracer);
    sent.at("sendmsg")?;
    judge_tracer(ctx, reader, "descriptor in mid-frame")
}

fn shrink(ctx: &Ctx) -> Attempted {
    let line = Line::open(ctx)?;
    let ring = memfd(1 << 20).at("memfd")?;
    let (reader, tracer) = sys::pipe().setup("pipe")?;
    let sent = send_fds(line.socket, &[ring, tracer], &frame(ctx));
    close(tracer);
    sent.at("sendmsg")?;
    let cut = sys!(libc::SYS_ftruncate, ring, 0);
    close(ring);
    cut.at("ftruncate")?;
    judge_tracer(ctx, reader, "memfd shrunk to nothing")
}

fn mutate(ctx: &Ctx) -> Attempted {
    let line = Line::open(ctx)?;
    let ring = memfd(1 << 16).at("memfd")?;
    let (reader, tracer) = sys::pipe().setup("pipe")?;
    let sent = send_fds(line.socket, &[ring, tracer], &frame(ctx));
    close(tracer);
    sent.at("sendmsg")?;
    let end = Instant::now() + Duration::from_millis(ctx.num("ms", 1000).min(10_000));
    let mut turn = 0u64;
    while Instant::now() < end && !sys::poll(reader, libc::POLLIN, Duration::ZERO) {
        // Indices and lengths of a ring lie in its first words: each turn they lie anew.
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let words = [turn, !turn, u64::MAX, 1 << 63, 0, turn << 32, 65_536, 1];
        sys!(libc::SYS_pwrite64, ring, words.as_ptr(), 64, 0).at("pwrite")?;
    }
    close(ring);
    judge_tracer(ctx, reader, "changing memfd")
}

fn received(ctx: &Ctx) -> Attempted {
    let mut stand_in = None;
    if ctx.outside() && ctx.channel.is_none() {
        let (ours, theirs) = sys::socketpair().setup("socket pair")?;
        if ours != 3 {
            sys!(libc::SYS_dup3, ours, 3, libc::O_CLOEXEC).setup("channel")?;
        }
        send_fds(theirs, &[0], b"x").setup("send a descriptor")?;
        stand_in = Some(theirs);
    } else {
        ctx.need_channel()?;
    }
    let end = Instant::now() + Duration::from_millis(ctx.num("ms", 200).min(5000));
    while Instant::now() < end {
        if sys::poll(3, libc::POLLIN, Duration::from_millis(20)) {
            let _ = wire::receive(ctx, libc::MSG_DONTWAIT);
        }
    }
    stand_in.into_iter().for_each(close);
    let count = ctx.received.borrow().len();
    if count == 0 {
        return Ok(blocked(None, "no descriptor came since the start"));
    }
    Ok(succeeded(format!("{count} descriptors came")))
}

/// A socket that a child drains: the host's stand-in outside.
fn drain() -> Result<i32, Outcome> {
    let (ours, theirs) = sys::socketpair().setup("socket pair")?;
    if sys::fork().setup("fork")? == 0 {
        close(ours);
        // SAFETY: plain call; it ends with the attempt.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        while sys::read_fd(theirs).is_ok_and(|b| !b.is_empty()) {}
        sys::exit(0);
    }
    close(theirs);
    Ok(ours)
}

fn sink(ctx: &Ctx, inside: i32) -> Result<i32, Outcome> {
    if ctx.outside() { drain() } else { Ok(inside) }
}

fn deadline(ctx: &Ctx, default: u64) -> Instant {
    let most = if ctx.outside() { 2 } else { 60 };
    Instant::now() + Duration::from_secs(ctx.num("seconds", default).min(most))
}

/// Writes `total` bytes made of `chunk`; the bytes written and why it ended.
fn pour(to: i32, chunk: &[u8], total: u64, end: Instant) -> (u64, Option<Errno>) {
    let mut poured = 0;
    while poured < total {
        let part = &chunk[..chunk.len().min((total - poured) as usize)];
        match sys::write_all(to, part, end) {
            Ok(()) => poured += part.len() as u64,
            Err((e, left)) => return (poured + (part.len() - left) as u64, Some(e)),
        }
    }
    (poured, None)
}

fn judge_pour(poured: (u64, Option<Errno>), total: u64) -> Attempted {
    match poured {
        (_, None) => Ok(succeeded(format!("{total} bytes were taken"))),
        (done, Some(e)) => Err(blocked(e.0, format!("{done} of {total} bytes were taken"))),
    }
}

fn log_flood(ctx: &Ctx, stream: i32, one_line: bool) -> Attempted {
    let to = sink(ctx, stream)?;
    let total = ctx.amount("bytes", 64 << 20, 16 << 20).min(4 << 30);
    let mut chunk = b"attacker log flood \x1b[31mred\x1b[0m ".repeat(128);
    if one_line {
        chunk.retain(|b| *b != b'\n');
    } else {
        chunk.push(b'\n');
    }
    judge_pour(pour(to, &chunk, total, deadline(ctx, 10)), total)
}

fn endless_line(ctx: &Ctx) -> Attempted {
    let to = sink(ctx, 3)?;
    let total = ctx.amount("bytes", 64 << 20, 16 << 20).min(8 << 30);
    let poured = pour(to, &[b'a'; 4096], total, deadline(ctx, 20));
    write_end(ctx, to);
    judge_pour(poured, total)
}

/// Ends the line, so that the answer stands on one of its own.
fn write_end(ctx: &Ctx, to: i32) {
    if !ctx.outside() {
        let _ = sys::write_all(to, b"\n", Instant::now() + Duration::from_secs(1));
    }
}

fn long_string(ctx: &Ctx) -> Attempted {
    let to = sink(ctx, 3)?;
    let total = ctx.amount("bytes", 64 << 20, 16 << 20).min(1 << 30);
    let end = deadline(ctx, 20);
    let head = br#"{"jsonrpc":"2.0","method":"log","params":{"level":"info","message":""#;
    let _ = sys::write_all(to, head, end);
    let poured = pour(to, &[b'a'; 4096], total, end);
    let _ = sys::write_all(to, b"\"}}\n", end);
    judge_pour(poured, total)
}

fn half_frame(ctx: &Ctx) -> Attempted {
    let to = sink(ctx, 3)?;
    let end = deadline(ctx, 10);
    let (head, tail) = (br#"{"jsonrpc":"2.0","method":"lo"#, b"g\"}\n");
    sys::write_all(to, head, end).map_err(|e| e.0).at("write")?;
    sys::sleep(end.saturating_duration_since(Instant::now()));
    sys::write_all(to, tail, Instant::now() + Duration::from_secs(1))
        .map_err(|e| e.0)
        .at("write")?;
    Ok(succeeded("the host waited for the other half"))
}

fn never_read(ctx: &Ctx) -> Attempted {
    let end = deadline(ctx, 30);
    sys::sleep(end.saturating_duration_since(Instant::now()));
    Ok(succeeded("nobody ended us"))
}

fn slow_drip(ctx: &Ctx) -> Attempted {
    let to = sink(ctx, 3)?;
    let end = deadline(ctx, 10);
    let mut bytes = frame(ctx);
    let last = bytes.split_off(bytes.len() - 1);
    let mut sent = 0;
    while Instant::now() < end {
        let byte = bytes.get(sent).map_or(b' ', |b| *b);
        sys::write_all(to, &[byte], end).map_err(|e| e.0).at("write")?;
        sent += 1;
        sys::sleep(Duration::from_millis(100));
    }
    let rest = bytes.get(sent..).unwrap_or_default();
    let _ = sys::write_all(to, &[rest, &last].concat(), Instant::now() + Duration::from_secs(1));
    Ok(succeeded(format!("{sent} bytes in drips")))
}

fn many_frames(ctx: &Ctx, make: impl Fn(u64) -> Vec<u8>) -> Attempted {
    let to = sink(ctx, 3)?;
    let count = ctx.amount("count", 100_000, 10_000).min(10_000_000);
    let end = deadline(ctx, 20);
    for i in 0..count {
        if let Err((e, _)) = sys::write_all(to, &make(i), end) {
            return Err(blocked(e.0, format!("{i} of {count} frames were taken")));
        }
    }
    Ok(succeeded(format!("{count} frames were taken")))
}

fn notifications(ctx: &Ctx) -> Attempted {
    let frame = frame(ctx);
    many_frames(ctx, |_| frame.clone())
}

fn requests(ctx: &Ctx) -> Attempted {
    many_frames(ctx, |i| {
        let id = 1_000_000 + i;
        line(&json!({"jsonrpc": "2.0", "id": id, "method": "storage.get", "params": {"key": "x"}}))
            .into_bytes()
    })
}

fn garbage(ctx: &Ctx, bytes: &[u8]) -> Attempted {
    let to = sink(ctx, 3)?;
    let end = Instant::now() + Duration::from_secs(10);
    sys::write_all(to, bytes, end).map_err(|e| e.0).at("write")?;
    Ok(succeeded(format!("{} bytes were taken; the host judges", bytes.len())))
}

fn future_ids(ctx: &Ctx) -> Attempted {
    let lines: String = (0..1000)
        .map(|id| line(&json!({"jsonrpc": "2.0", "id": id, "result": {"forged": true}})))
        .collect();
    garbage(ctx, lines.as_bytes())
}

fn twice(ctx: &Ctx) -> Attempted {
    let outcome = succeeded("first of two answers");
    if !ctx.outside() {
        wire::answer(ctx, &outcome);
    }
    Ok(succeeded("second of two answers"))
}

/// One request of ours; a result is a success, an error is the wall.
fn request(ctx: &Ctx, method: &str) -> Attempted {
    if ctx.outside() && ctx.channel.is_none() {
        answers_everything()?;
    }
    let id = 77_001;
    let params = ctx.params.get("request").cloned().unwrap_or_else(|| json!({}));
    wire::send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        if let Some(reply) = take_reply(ctx, id) {
            let text: String = reply.to_string().chars().take(400).collect();
            return Ok(if reply.get("result").is_some() {
                succeeded(text)
            } else {
                blocked(None, text)
            });
        }
        if sys::poll(3, libc::POLLIN, Duration::from_millis(50)) && wire::receive(ctx, 0) == Ok(0) {
            return Ok(blocked(libc::EPIPE, "the host closed the channel"));
        }
    }
    Ok(blocked(libc::ETIMEDOUT, "no reply within 5 s"))
}

/// A host that gives everybody what they ask for, in the place of the real one.
fn answers_everything() -> Result<(), Outcome> {
    let (ours, theirs) = sys::socketpair().setup("socket pair")?;
    if sys::fork().setup("fork")? == 0 {
        close(ours);
        // SAFETY: plain call; it ends with the attempt.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        while let Ok(asked) = sys::read_fd(theirs) {
            let Ok(asked) = serde_json::from_slice::<Value>(&asked) else { break };
            let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {}});
            let end = Instant::now() + Duration::from_secs(5);
            let _ = sys::write_all(theirs, format!("{answer}\n").as_bytes(), end);
        }
        sys::exit(0);
    }
    close(theirs);
    if ours != 3 {
        sys!(libc::SYS_dup3, ours, 3, libc::O_CLOEXEC).setup("channel")?;
    }
    Ok(())
}

/// Takes the reply with that id out of what was read; other lines stay.
fn take_reply(ctx: &Ctx, id: u64) -> Option<Value> {
    let mut pending = ctx.pending.borrow_mut();
    let mut begin = 0;
    while let Some(length) = pending[begin..].iter().position(|b| *b == b'\n') {
        let whole = &pending[begin..begin + length];
        let found = contains(whole, id.to_string().as_bytes())
            .then(|| serde_json::from_slice::<Value>(whole).ok())
            .flatten()
            .filter(|m| m["id"] == json!(id) && m.get("method").is_none());
        if found.is_some() {
            pending.drain(begin..=begin + length);
            return found;
        }
        begin += length + 1;
    }
    None
}
