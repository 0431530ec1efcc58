//! The plugin side of the wire: newline-delimited JSON-RPC 2.0 on fd 3.
//!
//! It is as small as a plugin can be, and reads with `recvmsg` so that descriptors which the host
//! sends unasked are noticed. The attempts that abuse the channel live in `channel`.

use crate::outcome::{Errno, Outcome, Sys, impossible};
use crate::table::{self, Ctx};
use crate::{channel, sys};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// fd 3, where it is a socket.
pub fn channel() -> Option<i32> {
    // SAFETY: zeroed stat is valid; fstat fills it.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        let is_socket = libc::fstat(3, &mut st) == 0 && st.st_mode & libc::S_IFMT == libc::S_IFSOCK;
        is_socket.then_some(3)
    }
}

/// The answer to a call, as the harness reads it.
pub fn answer_json(ctx: &Ctx, outcome: &Outcome) -> Value {
    let (number, variant) = ctx.current.get();
    let mut v = outcome.to_json();
    v["number"] = json!(number);
    v["variant"] = json!(variant);
    v
}

/// Answers the call that is being handled.
pub fn answer(ctx: &Ctx, outcome: &Outcome) {
    let id = ctx.call_id.borrow().clone();
    let result = answer_json(ctx, outcome);
    send(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
}

/// Sends one message; a host that does not read for 10 s is given up on.
pub fn send(message: &Value) {
    let line = format!("{message}\n");
    let _ = sys::write_all(3, line.as_bytes(), Instant::now() + Duration::from_secs(10));
}

/// One `recvmsg` on the channel; descriptors that came along are kept in `received`.
pub fn receive(ctx: &Ctx, flags: i32) -> Sys<usize> {
    let mut data = vec![0u8; 65536];
    let mut control = vec![0u64; 256];
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: the message header points at live buffers; control messages are walked with the
    // macros of libc, within what the kernel says that it wrote.
    let n = unsafe {
        let mut msg: libc::msghdr = std::mem::zeroed();
        msg.msg_iov = &mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = control.as_mut_ptr().cast();
        msg.msg_controllen = control.len() * 8;
        let n = libc::recvmsg(3, &mut msg, flags | libc::MSG_CMSG_CLOEXEC);
        if n < 0 {
            return Err(Errno::last());
        }
        let mut cmsg = libc::CMSG_FIRSTHDR(&msg);
        while !cmsg.is_null() {
            if (*cmsg).cmsg_level == libc::SOL_SOCKET && (*cmsg).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*cmsg).cmsg_len - libc::CMSG_LEN(0) as usize;
                let fds = libc::CMSG_DATA(cmsg).cast::<i32>();
                for i in 0..bytes / 4 {
                    ctx.received.borrow_mut().push(fds.add(i).read_unaligned());
                }
            }
            cmsg = libc::CMSG_NXTHDR(&msg, cmsg);
        }
        n as usize
    };
    if flags & libc::MSG_PEEK == 0 {
        ctx.pending.borrow_mut().extend_from_slice(&data[..n]);
    }
    Ok(n)
}

/// The next whole line, without its newline; `None` at the end of the channel.
fn next_line(ctx: &Ctx) -> Option<Vec<u8>> {
    loop {
        let mut pending = ctx.pending.borrow_mut();
        if let Some(end) = pending.iter().position(|b| *b == b'\n') {
            let mut line: Vec<u8> = pending.drain(..=end).collect();
            line.pop();
            return Some(line);
        }
        drop(pending);
        match receive(ctx, 0) {
            Ok(0) => return None,
            Ok(_) | Err(Errno(libc::EINTR | libc::EAGAIN)) => {}
            Err(_) => return None,
        }
    }
}

/// Serves the host until `shutdown` or the end of the channel.
pub fn serve(handshake: Option<String>) -> ExitCode {
    if channel().is_none() {
        eprintln!("attacker: fd 3 is not a socket; see `attacker list`");
        return ExitCode::from(2);
    }
    let mut ctx = Ctx::new(json!({}), false, Some(3));
    while let Some(line) = next_line(&ctx) {
        let Ok(message) = serde_json::from_slice::<Value>(&line) else { continue };
        let Some(id) = message.get("id").filter(|id| !id.is_null()) else { continue };
        let Some(method) = message["method"].as_str() else { continue };
        let reply = |result: Value| send(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
        match method {
            "initialize" => {
                let asked = message["params"]["config"]["handshake"].as_str();
                let mode = handshake.as_deref().or(asked).unwrap_or("honest");
                channel::initialize(id, &message["params"], mode);
            }
            "ping" => reply(json!({})),
            "shutdown" => {
                reply(json!({}));
                return ExitCode::SUCCESS;
            }
            "call" => {
                ctx.params = message["params"]["args"]["params"].clone();
                *ctx.call_id.borrow_mut() = id.clone();
                ctx.answered.set(false);
                let args = &message["params"]["args"];
                let outcome = call(&ctx, args);
                if !ctx.answered.get() {
                    answer(&ctx, &outcome);
                }
            }
            _ => send(&json!({"jsonrpc": "2.0", "id": id,
                "error": {"code": -32601, "message": "method not found"}})),
        }
    }
    ExitCode::SUCCESS
}

fn call(ctx: &Ctx, args: &Value) -> Outcome {
    let number = args["number"].as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
    match table::find(number, args["variant"].as_str()) {
        Some(found) => {
            ctx.current.set((found.number, found.variant));
            found.make(ctx)
        }
        None => {
            ctx.current.set((number, "unknown"));
            impossible("no such attempt")
        }
    }
}
