//! What a hostile program tries. Each task prints one line at its end: `reached` with what, `blocked` with
//! the reason, or nothing where it was ended before.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use wasip2::{
    clocks::monotonic_clock,
    filesystem::{
        preopens,
        types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags},
    },
    http::types::{Fields, Method, OutgoingRequest, Scheme},
    io::poll::Pollable,
    random::{insecure, random},
};

/// Does a task of this module; what it works on stands in lines.
pub fn run(task: &str, what: &str) {
    let mut lines = what.lines();
    let mut next = || lines.next().unwrap_or_default();
    let line = match task {
        "open" => file(fs::read_to_string(next())),
        "create" => file(fs::File::create_new(next()).map(|_| "made".into())),
        "write-through" => file(fs::write(next(), "made").map(|()| "made".into())),
        "append" => file(
            fs::OpenOptions::new()
                .append(true)
                .open(next())
                .and_then(|mut file| io::Write::write_all(&mut file, b"more"))
                .map(|()| "written".into()),
        ),
        "truncate" => file(
            fs::OpenOptions::new().write(true).truncate(true).open(next()).map(|_| "cut".into()),
        ),
        "remove" => file(fs::remove_file(next()).map(|()| "removed".into())),
        "rename" => file(fs::rename(next(), next()).map(|()| "renamed".into())),
        "hardlink" => file(fs::hard_link(next(), next()).map(|()| "linked".into())),
        "readlink" => file(fs::read_link(next()).map(|to| to.display().to_string())),
        "stat" => file(fs::metadata(next()).map(|found| found.len().to_string())),
        // A path as it is, without the library's own look at it, in the first folder.
        "raw" => raw(next()),
        // A link of the guest's own, and what is behind it.
        "own-link" => own_link(next(), next()),
        // Reads again and again, until something else than the first content is there.
        "race" => race(next(), next()),
        "many-files" => many_files(next(), next()),
        "again" => again(next()),
        "wait" => {
            let pollables = [monotonic_clock::subscribe_duration(u64::MAX)];
            let all: Vec<&Pollable> = pollables.iter().collect();
            format!("reached {:?}", wasip2::io::poll::poll(&all))
        }
        "pollables" => {
            let count: usize = number(next());
            let kept: Vec<Pollable> =
                (0..count).map(|_| monotonic_clock::subscribe_duration(u64::MAX)).collect();
            format!("reached {} pollables", kept.len())
        }
        "poll-list" => {
            let pollable = monotonic_clock::subscribe_duration(0);
            let all = vec![&pollable; number(next())];
            format!("reached {}", wasip2::io::poll::poll(&all).len())
        }
        "fields" => fields(number(next()), number(next())),
        "requests" => requests(number(next()), number(next())),
        "body-piece" => body_piece(number(next())),
        "random-bytes" => {
            format!("reached {}", random::get_random_bytes(number(next()) as u64).len())
        }
        "insecure" => {
            format!("reached {}", insecure::get_insecure_random_bytes(number(next()) as u64).len())
        }
        "read-giant" => read_giant(next(), next().parse().unwrap()),
        "long-path" => {
            file(fs::read_to_string(format!("{}/{}", next(), "a/".repeat(number(next())))))
        }
        "variable" => match std::env::var(next()) {
            Ok(value) => format!("reached {value}"),
            Err(_) => "blocked absent".into(),
        },
        "field" => field(next(), next()),
        // One request, and the one that its answer leads to.
        "fetch" => {
            let first = crate::request(next(), Method::Get, &[], None);
            let location =
                first.split_once("location=").and_then(|(_, rest)| rest.split(' ').next());
            let last = match location {
                Some(to) => crate::request(to, Method::Get, &[], None),
                None => first.clone(),
            };
            match last.split_once("status 200") {
                Some((_, rest)) => format!("reached {rest}"),
                None => format!("blocked {}", last.replace("error ErrorCode::", "")),
            }
        }
        "split" => split(next(), next(), next()),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "memory" => {
            let mut kept = Vec::new();
            for _ in 0..number(next()) {
                let mut page: Vec<u8> = Vec::new();
                if page.try_reserve_exact(1 << 20).is_err() {
                    println!("blocked allocation after {} MiB", kept.len());
                    return;
                }
                page.resize(1 << 20, 1);
                kept.push(page);
            }
            format!("reached {} MiB", kept.len())
        }
        other => format!("no task {other:?}"),
    };
    println!("{line}");
}

fn number(text: &str) -> usize {
    text.parse().unwrap()
}

/// What became of a file, or the number of the error (wasi-libc's errno.h).
fn file(result: io::Result<String>) -> String {
    match result {
        Ok(text) => format!("reached {}", text.escape_default()),
        Err(error) => match error.raw_os_error() {
            Some(number) => format!("blocked {}", errno(number)),
            None => format!("blocked {:?}", error.kind()),
        },
    }
}

fn errno(number: i32) -> String {
    let name = match number {
        2 => "EACCES",
        8 => "EBADF",
        19 => "EDQUOT",
        20 => "EEXIST",
        28 => "EINVAL",
        29 => "EIO",
        31 => "EISDIR",
        32 => "ELOOP",
        33 => "EMFILE",
        37 => "ENAMETOOLONG",
        44 => "ENOENT",
        54 => "ENOTDIR",
        58 => "ENOTSUP",
        63 => "EPERM",
        69 => "EROFS",
        75 => "EXDEV",
        76 => "ENOTCAPABLE",
        other => return format!("errno-{other}"),
    };
    name.into()
}

fn code(error: wasip2::filesystem::types::ErrorCode) -> String {
    format!("blocked {}", error.name())
}

fn first_folder() -> Option<(Descriptor, String)> {
    preopens::get_directories().into_iter().next()
}

fn read_all(file: &Descriptor) -> String {
    match file.read(1 << 16, 0) {
        Ok((bytes, _)) => format!("reached {}", String::from_utf8_lossy(&bytes).escape_default()),
        Err(error) => code(error),
    }
}

fn raw(path: &str) -> String {
    let Some((folder, _)) = first_folder() else { return "blocked no folder".into() };
    let (open, read) = (OpenFlags::empty(), DescriptorFlags::READ);
    match folder.open_at(PathFlags::SYMLINK_FOLLOW, path, open, read) {
        Ok(file) => read_all(&file),
        Err(error) => code(error),
    }
}

fn own_link(name: &str, target: &str) -> String {
    let Some((folder, path)) = first_folder() else { return "blocked no folder".into() };
    // Some hosts refuse links that lead out already when they are made.
    match folder.symlink_at(target, name) {
        Ok(()) => file(fs::read_to_string(format!("{path}/{name}"))),
        Err(error) => code(error),
    }
}

/// That it was ended inside counts only where the path was read often, and with what stands inside.
fn race(path: &str, ms: &str) -> String {
    let until = Instant::now() + Duration::from_millis(number(ms) as u64);
    let (mut rounds, mut inside) = (0, 0);
    while Instant::now() < until {
        rounds += 1;
        match fs::read_to_string(path) {
            Ok(text) if text.starts_with("secret") => return format!("reached after {rounds}"),
            Ok(_) => inside += 1,
            Err(_) => {}
        }
    }
    format!("blocked {}", if rounds > 50 && inside > 0 { "inside" } else { "too-slow" })
}

fn many_files(path: &str, most: &str) -> String {
    let mut kept = Vec::new();
    for _ in 0..number(most) {
        match fs::File::open(path) {
            Ok(file) => kept.push(file),
            Err(error) => {
                eprintln!("{} files", kept.len());
                return file(Err(error));
            }
        }
    }
    format!("reached {} files", kept.len())
}

/// Opens a file as often as it may and reads of each, so that it has a stream; closes three, and does so again.
fn again(path: &str) -> String {
    let fill = |kept: &mut Vec<fs::File>| loop {
        match fs::File::open(path) {
            Ok(mut file) => {
                io::Read::read_exact(&mut file, &mut [0]).unwrap();
                kept.push(file);
            }
            Err(error) => break (kept.len(), file(Err(error))),
        }
    };
    let mut kept = Vec::new();
    let first = fill(&mut kept);
    kept.truncate(first.0 - 3);
    format!("{first:?} {:?}", fill(&mut kept))
}

/// So many fields, each with so many bytes.
fn fields(sets: usize, bytes: usize) -> String {
    let mut kept = Vec::new();
    for _ in 0..sets {
        let fields = Fields::new();
        let value = vec![b'a'; 1000];
        for n in 0..bytes / 1000 {
            if let Err(error) = fields.append(&format!("x-{n}"), &value) {
                return format!("blocked {error:?} after {n}");
            }
        }
        kept.push(fields);
    }
    format!("reached {} sets", kept.len())
}

/// Requests that are never sent, each with a body of so many bytes.
fn requests(count: usize, bytes: usize) -> String {
    let mut kept = Vec::new();
    let piece = vec![1; 4096];
    for _ in 0..count {
        let request = OutgoingRequest::new(Fields::new());
        let body = request.body().unwrap();
        let stream = body.write().unwrap();
        let mut written = 0;
        while written < bytes {
            match stream.check_write() {
                Ok(0) | Err(_) => break,
                Ok(room) => {
                    let part = &piece[..piece.len().min(room as usize)];
                    if stream.write(part).is_err() {
                        break;
                    }
                    written += part.len();
                }
            }
        }
        // In the order in which they are let go: a body with a stream is none to drop.
        kept.push((stream, body, request));
    }
    format!("reached {} requests", kept.len())
}

/// So many bytes into a body at once, without a question how many it takes.
fn body_piece(bytes: usize) -> String {
    let request = OutgoingRequest::new(Fields::new());
    let body = request.body().unwrap();
    let stream = body.write().unwrap();
    match stream.write(&vec![1; bytes]) {
        Ok(()) => format!("reached {bytes}"),
        Err(error) => format!("blocked {error:?}"),
    }
}

fn read_giant(path: &str, bytes: u64) -> String {
    let Some((folder, below)) = first_folder() else { return "blocked no folder".into() };
    let name = path.strip_prefix(&below).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
    let (open, read) = (OpenFlags::empty(), DescriptorFlags::READ);
    match folder.open_at(PathFlags::empty(), name, open, read) {
        Ok(file) => match file.read(bytes, 0) {
            Ok((read, _)) => format!("reached {}", read.len()),
            Err(error) => code(error),
        },
        Err(error) => code(error),
    }
}

/// Sends a header field to a server; names and values stand with their escapes.
fn field(url: &str, field: &str) -> String {
    let (name, value) = field.split_once('|').unwrap();
    let unescape = |text: &str| text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0");
    let fields = Fields::new();
    if let Err(error) = fields.append(&unescape(name), unescape(value).as_bytes()) {
        return format!("blocked {error:?}");
    }
    format!(
        "reached {}",
        crate::request(url, Method::Get, &[(&unescape(name), &unescape(value))], None)
    )
}

/// Puts a second request into a part of the first one.
fn split(url: &str, part: &str, text: &str) -> String {
    let text = text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0");
    let (_, rest) = url.split_once("://").unwrap();
    let authority = rest.trim_end_matches('/');
    let request = OutgoingRequest::new(Fields::new());
    let (mut method, mut path, mut host) = (Method::Get, "/".to_owned(), authority.to_owned());
    match part {
        "method" => method = Method::Other(text),
        "path" => path = text,
        _ => host = text,
    }
    let set = [
        request.set_method(&method).is_ok(),
        request.set_scheme(Some(&Scheme::Http)).is_ok(),
        request.set_authority(Some(&host)).is_ok(),
        request.set_path_with_query(Some(&path)).is_ok(),
    ];
    if set.contains(&false) {
        return "blocked not-a-request".into();
    }
    let answer = match wasip2::http::outgoing_handler::handle(request, None) {
        Ok(answer) => answer,
        Err(error) => return format!("blocked {error:?}"),
    };
    answer.subscribe().block();
    match answer.get() {
        Some(Ok(Ok(response))) => format!("reached {}", response.status()),
        other => format!("blocked {other:?}").chars().take(120).collect(),
    }
}
