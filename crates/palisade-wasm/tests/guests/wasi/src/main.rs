//! Does what `TASK` says and prints what came of it; `WHAT` says with what.

mod attacks;
mod lists;
mod sockets;

use std::{env, fs, io::Read as _};

use wasip2::http::{
    outgoing_handler,
    types::{
        Fields, FutureIncomingResponse, IncomingBody, Method, OutgoingBody, OutgoingRequest, Scheme,
    },
};

fn main() {
    let what = env::var("WHAT").unwrap_or_default();
    match env::var("TASK").unwrap_or_default().as_str() {
        "read" => println!("{:?}", fs::read_to_string(what).map_err(|e| e.kind())),
        "write" => println!("{:?}", fs::write(what, "written").map_err(|e| e.kind())),
        "list" => {
            let names = fs::read_dir(what).map(|all| {
                let mut names: Vec<String> =
                    all.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
                names.sort();
                names
            });
            println!("{:?}", names.map_err(|e| e.kind()));
        }
        "entries" => lists::entries(&what),
        "listings" => {
            let (path, count) = what.split_once('\n').unwrap();
            println!("{}", lists::hold(path, count.parse().unwrap()));
        }
        // Makes a link out of a folder and reads through it.
        "link" => {
            let (link, target) = what.split_once(' ').unwrap();
            let folders = wasip2::filesystem::preopens::get_directories();
            let below = |path: &String| link.strip_prefix(path).and_then(|r| r.strip_prefix('/'));
            let found = folders.iter().find_map(|(folder, path)| Some((folder, below(path)?)));
            match found {
                Some((folder, name)) => println!("made {:?}", folder.symlink_at(target, name)),
                None => println!("no folder"),
            }
            println!("{:?}", fs::read_to_string(link).map_err(|e| e.kind()));
        }
        "environment" => {
            let mut all: Vec<(String, String)> = env::vars().collect();
            all.sort();
            println!("{all:?}");
            println!("arguments {:?}", env::args().collect::<Vec<_>>());
            let mut text = String::new();
            println!(
                "stdin {:?}",
                std::io::stdin().read_to_string(&mut text).map_err(|e| e.kind())
            );
        }
        "spam" => {
            let line = "x".repeat(1000);
            for _ in 0..what.parse().unwrap() {
                println!("{line}");
            }
            eprintln!("done");
        }
        "sleep" => std::thread::sleep(std::time::Duration::from_millis(what.parse().unwrap())),
        "exit" => std::process::exit(what.parse().unwrap()),
        "random" => {
            println!("{}", wasip2::random::random::get_random_bytes(what.parse().unwrap()).len())
        }
        "get" => println!("{}", request(&what, Method::Get, &[], None)),
        "post" => {
            println!("{}", request(&what, Method::Post, &[("content-length", "5")], Some("12345")))
        }
        "short" => {
            println!("{}", request(&what, Method::Post, &[("content-length", "9")], Some("12345")))
        }
        "late" => println!("{}", finished_after_the_answer(&what)),
        "connect" => println!("{}", request(&what, Method::Connect, &[], None)),
        // As a client that follows redirects would.
        "follow" => {
            let first = request(&what, Method::Get, &[], None);
            println!("{first}");
            if let Some((_, location)) = first.split_once("location=") {
                println!(
                    "{}",
                    request(location.split(' ').next().unwrap(), Method::Get, &[], None)
                );
            }
        }
        "smuggle" => {
            for (name, value) in [
                ("host", "other.example"),
                ("transfer-encoding", "chunked"),
                ("connection", "keep-alive"),
                ("te", "trailers"),
                ("expect", "100-continue"),
                ("x-a", "1\r\nHost: other.example"),
                ("x-a\r\nHost", "other.example"),
                ("content-length", "5, 6"),
                ("x-fine", "1"),
            ] {
                let fields = Fields::new();
                let set = fields.append(name, value.as_bytes()).map_err(|e| format!("{e:?}"));
                println!("{name:?} {set:?}");
            }
            println!("{}", request(&what, Method::Get, &[("x-fine", "1")], None));
        }
        "tcp" | "tcp-fetch" | "tcp-large" | "tcp-many" | "tcp-again" | "tcp-leave" | "tcp-hold" | "tcp-addresses"
        | "udp" | "listen" | "bind" | "names" | "flood" => {
            sockets::run(&env::var("TASK").unwrap_or_default(), &what)
        }
        other => attacks::run(other, &what),
    }
}

/// One request, as one line: the status with the length and the beginning of the body, or the error.
fn request(url: &str, method: Method, headers: &[(&str, &str)], body: Option<&str>) -> String {
    let request = match prepared(url, method, headers) {
        Ok(request) => request,
        Err(why) => return why,
    };
    let sent = body.map(|text| (request.body().unwrap(), text));
    let answer = match outgoing_handler::handle(request, None) {
        Ok(answer) => answer,
        Err(error) => return format!("refused {error:?}"),
    };
    if let Some((body, text)) = sent {
        let stream = body.write().unwrap();
        let written = stream.blocking_write_and_flush(text.as_bytes());
        drop(stream);
        let finished = OutgoingBody::finish(body, None);
        if written.is_err() || finished.is_err() {
            return format!("body {written:?} {finished:?}");
        }
    }
    answered(&answer)
}

/// A request whose body is flushed and finished only when its answer is here: all its bytes had been sent long
/// before.
fn finished_after_the_answer(url: &str) -> String {
    let request = prepared(url, Method::Post, &[("content-length", "5")]).unwrap();
    let body = request.body().unwrap();
    let answer = outgoing_handler::handle(request, None).unwrap();
    let stream = body.write().unwrap();
    stream.subscribe().block();
    let written = stream.check_write().and_then(|_| stream.write(b"12345"));
    answer.subscribe().block();
    let flushed = stream.blocking_flush();
    drop(stream);
    let finished = OutgoingBody::finish(body, None);
    format!("{} {written:?} {flushed:?} {finished:?}", answered(&answer))
}

fn prepared(
    url: &str,
    method: Method,
    headers: &[(&str, &str)],
) -> Result<OutgoingRequest, String> {
    let (scheme, rest) = match url.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some((_, rest)) => (Scheme::Https, rest),
        None => return Err("no scheme".into()),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let fields = Fields::new();
    for (name, value) in headers {
        if let Err(error) = fields.append(name, value.as_bytes()) {
            return Err(format!("field {name}: {error:?}"));
        }
    }
    let request = OutgoingRequest::new(fields);
    let set = request.set_method(&method).is_ok()
        && request.set_scheme(Some(&scheme)).is_ok()
        && request.set_authority(Some(authority)).is_ok()
        && request.set_path_with_query(Some(path)).is_ok();
    if set { Ok(request) } else { Err("not a request".into()) }
}

fn answered(answer: &FutureIncomingResponse) -> String {
    answer.subscribe().block();
    let response = match answer.get() {
        Some(Ok(Ok(response))) => response,
        Some(Ok(Err(error))) => return format!("error {error:?}"),
        other => return format!("nothing {other:?}"),
    };
    let mut text = format!("status {}", response.status());
    for (name, value) in response.headers().entries() {
        if name == "location" {
            text.push_str(&format!(" location={}", String::from_utf8_lossy(&value)));
        }
    }
    let body: IncomingBody = response.consume().unwrap();
    let stream = body.stream().unwrap();
    let mut all = Vec::new();
    let end = loop {
        match stream.blocking_read(1 << 16) {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(end) => break end,
        }
    };
    let closed = matches!(end, wasip2::io::streams::StreamError::Closed);
    let begin = String::from_utf8_lossy(&all[..all.len().min(60)]).into_owned();
    format!("{text} body {} {begin:?} whole {closed}", all.len())
}
