//! A program in the place of the engine, that somebody has taken over: it does all that an engine does before the
//! first call. Built by `tests/walled` with rustc alone.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::fd::FromRawFd as _,
    time::Duration,
};

fn main() {
    if std::env::args().nth(2).is_some() {
        // To compile: any code will do, since nobody looks at it.
        let mut wasm = Vec::new();
        std::io::stdin().read_to_end(&mut wasm).unwrap();
        std::io::stdout().write_all(b"\0code").unwrap();
        return;
    }
    // SAFETY: the lane, which nobody else in this program has.
    let lane = unsafe { File::from_raw_fd(3) };
    let mut lines = BufReader::new(lane);
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap_or(0) > 0 {
        let id = field(&line, "\"id\":").to_owned();
        let says = |text: &str| line.contains(&format!("\"{text}\""));
        let error = |code: &str| {
            let data = format!("{{\"code\":\"PAL-{code}\"}}");
            format!("\"error\":{{\"code\":-32000,\"message\":\"no\",\"data\":{data}}}")
        };
        let answer = match () {
            () if id.is_empty() => None,
            () if says("initialize") => {
                Some("\"result\":{\"protocol\":1,\"features\":[]}".to_owned())
            }
            () if !says("call") => Some("\"result\":{}".to_owned()),
            () if says("unavailable") => Some(error("UNAVAILABLE")),
            () if says("denied") => Some(error("DENIED")),
            () if says("conflict") => Some(error("CONFLICT")),
            () if says("close") => break,
            () => None,
        };
        if let Some(answer) = answer {
            let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{answer}}}\n");
            lines.get_mut().write_all(text.as_bytes()).unwrap();
        }
        let ends = says("shutdown");
        line.clear();
        if ends {
            return;
        }
    }
    drop(lines);
    std::thread::sleep(Duration::from_secs(600));
}

/// What stands behind a name, to the next comma.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let rest = line.split_once(name).map_or("", |(_, rest)| rest);
    rest.split([',', '}']).next().unwrap_or_default()
}
