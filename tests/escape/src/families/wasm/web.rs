//! 107 to 110: requests that are led elsewhere: by a redirect, by a name, by an address, by what stands in
//! them. Four kinds of guest make each of them: of `palisade:plugin`, of WASI 0.2 and 0.3, and of Extism. Those of
//! WASI also by connections that they make themselves.

use std::{net::Ipv4Addr, time::Duration};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Case,
    Control::{Careless, Lifted},
    Verdict,
    guests::text,
    imports::with,
    net::{Names, Web, ok, redirect},
    room::{Room, Running, Terms, of_call, outcome},
    succeeded,
};
use crate::trouble::Result;

const TIME: Duration = Duration::from_secs(10);

/// Who makes the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Plugin,
    Wasi,
    Wasi3,
    Extism,
    /// Over a connection of WASI 0.2.
    Tcp,
    /// Over one of WASI 0.3.
    Tcp3,
}
use By::{Extism, Plugin, Tcp, Tcp3, Wasi, Wasi3};

impl By {
    /// The kind of right that it takes.
    fn right(self, authority: &str) -> String {
        let kind = if matches!(self, Tcp | Tcp3) { "net.tcp" } else { "net.http" };
        format!("{kind}:{authority}")
    }
}

macro_rules! case {
    ($number:expr, $variant:expr, $name:expr, $made:expr) => {
        Case {
            number: $number,
            variant: $variant,
            name: $name,
            attack: |room| Box::pin($made(room)),
            control: Lifted,
            without: &[],
        }
    };
}

/// One that no reader of ours takes for what it is meant to be; a careless one does.
macro_rules! careless {
    ($number:expr, $variant:expr, $name:expr, $made:expr, $control:expr) => {
        Case {
            number: $number,
            variant: $variant,
            name: $name,
            attack: |room| Box::pin($made(room)),
            control: Careless(|_| Box::pin($control)),
            without: &[],
        }
    };
}

const ELSEWHERE: &str = "a redirect to a host that is not granted";
const OTHER_PORT: &str = "a redirect to another port of the granted host";
const TURNS: &str = "a name that leads to a forbidden address the second time";
const BOTH: &str = "a name that leads to a granted and to a forbidden address";
const LOOPBACK: &str = "a granted name that leads to the host itself";
const MAPPED: &str = "the same, written as an IPv6 address";
const LITERAL: &str = "the address of the host itself";
const DECIMAL: &str = "the same as one number";
const IN_NAME: &str = "a second request in the name of a header field";
const IN_VALUE: &str = "a second request in a header field";
const IN_METHOD: &str = "a header field in the method";
const IN_PATH: &str = "a header field in the path";
const HOST: &str = "a host field that names another host";
const CHUNKED: &str = "a field that says where the message ends";

pub(super) const CASES: &[Case] = &[
    case!(107, "plugin", ELSEWHERE, |room| led(room, Plugin, false)),
    case!(107, "wasi", ELSEWHERE, |room| led(room, Wasi, false)),
    case!(107, "wasi-0.3", ELSEWHERE, |room| led(room, Wasi3, false)),
    case!(107, "extism", ELSEWHERE, |room| led(room, Extism, false)),
    case!(107, "port", OTHER_PORT, |room| led(room, Plugin, true)),
    case!(107, "wasi-port", OTHER_PORT, |room| led(room, Wasi, true)),
    case!(107, "wasi-0.3-port", OTHER_PORT, |room| led(room, Wasi3, true)),
    case!(107, "extism-port", OTHER_PORT, |room| led(room, Extism, true)),
    case!(108, "plugin", TURNS, |room| turned(room, Plugin, false)),
    case!(108, "wasi", TURNS, |room| turned(room, Wasi, false)),
    case!(108, "wasi-0.3", TURNS, |room| turned(room, Wasi3, false)),
    case!(108, "extism", TURNS, |room| turned(room, Extism, false)),
    case!(108, "sockets", TURNS, |room| turned(room, Tcp, false)),
    case!(108, "sockets-0.3", TURNS, |room| turned(room, Tcp3, false)),
    case!(108, "both", BOTH, |room| turned(room, Plugin, true)),
    case!(108, "wasi-both", BOTH, |room| turned(room, Wasi, true)),
    case!(108, "sockets-both", BOTH, |room| turned(room, Tcp, true)),
    case!(109, "name", LOOPBACK, |room| private(room, Plugin, "127.0.0.1")),
    case!(109, "wasi-name", LOOPBACK, |room| private(room, Wasi, "127.0.0.1")),
    case!(109, "wasi-0.3-name", LOOPBACK, |room| private(room, Wasi3, "127.0.0.1")),
    case!(109, "extism-name", LOOPBACK, |room| private(room, Extism, "127.0.0.1")),
    case!(109, "sockets-name", LOOPBACK, |room| private(room, Tcp, "127.0.0.1")),
    case!(109, "sockets-0.3-name", LOOPBACK, |room| private(room, Tcp3, "127.0.0.1")),
    case!(109, "mapped", MAPPED, |room| private(room, Plugin, "::ffff:127.0.0.1")),
    case!(109, "wasi-mapped", MAPPED, |room| private(room, Wasi, "::ffff:127.0.0.1")),
    case!(109, "wasi-0.3-mapped", MAPPED, |room| private(room, Wasi3, "::ffff:127.0.0.1")),
    case!(109, "sockets-mapped", MAPPED, |room| private(room, Tcp, "::ffff:127.0.0.1")),
    case!(109, "literal", LITERAL, |room| literal(room, Plugin, "127.0.0.1")),
    case!(109, "wasi-literal", LITERAL, |room| literal(room, Wasi, "127.0.0.1")),
    case!(109, "wasi-0.3-literal", LITERAL, |room| literal(room, Wasi3, "127.0.0.1")),
    case!(109, "extism-literal", LITERAL, |room| literal(room, Extism, "127.0.0.1")),
    case!(109, "sockets-literal", LITERAL, |room| literal(room, Tcp, "127.0.0.1")),
    case!(109, "sockets-0.3-literal", LITERAL, |room| literal(room, Tcp3, "127.0.0.1")),
    careless!(109, "decimal", DECIMAL, |room| literal(room, Plugin, "2130706433"), looked_up()),
    careless!(109, "wasi-decimal", DECIMAL, |room| literal(room, Wasi, "2130706433"), looked_up()),
    careless!(
        109,
        "sockets-decimal",
        DECIMAL,
        |room| literal(room, Tcp, "2130706433"),
        looked_up()
    ),
    careless!(
        109,
        "wasi-0.3-decimal",
        DECIMAL,
        |room| literal(room, Wasi3, "2130706433"),
        looked_up()
    ),
    careless!(110, "name", IN_NAME, |room| smuggled(room, Plugin, NAME), written(NAME)),
    careless!(110, "wasi-name", IN_NAME, |room| smuggled(room, Wasi, NAME), written(NAME)),
    careless!(110, "wasi-0.3-name", IN_NAME, |room| smuggled(room, Wasi3, NAME), written(NAME)),
    careless!(110, "extism-name", IN_NAME, |room| smuggled(room, Extism, NAME), written(NAME)),
    careless!(110, "value", IN_VALUE, |room| smuggled(room, Plugin, VALUE), written(VALUE)),
    careless!(110, "wasi-value", IN_VALUE, |room| smuggled(room, Wasi, VALUE), written(VALUE)),
    careless!(110, "wasi-0.3-value", IN_VALUE, |room| smuggled(room, Wasi3, VALUE), written(VALUE)),
    careless!(110, "extism-value", IN_VALUE, |room| smuggled(room, Extism, VALUE), written(VALUE)),
    careless!(110, "method", IN_METHOD, |room| smuggled(room, Plugin, METHOD), written(METHOD)),
    careless!(110, "wasi-method", IN_METHOD, |room| smuggled(room, Wasi, METHOD), written(METHOD)),
    careless!(
        110,
        "wasi-0.3-method",
        IN_METHOD,
        |room| smuggled(room, Wasi3, METHOD),
        written(METHOD)
    ),
    careless!(
        110,
        "extism-method",
        IN_METHOD,
        |room| smuggled(room, Extism, METHOD),
        written(METHOD)
    ),
    careless!(110, "path", IN_PATH, |room| smuggled(room, Plugin, PATH), written(PATH)),
    careless!(110, "wasi-path", IN_PATH, |room| smuggled(room, Wasi, PATH), written(PATH)),
    careless!(110, "wasi-0.3-path", IN_PATH, |room| smuggled(room, Wasi3, PATH), written(PATH)),
    careless!(110, "extism-path", IN_PATH, |room| smuggled(room, Extism, PATH), written(PATH)),
    careless!(110, "host", HOST, |room| smuggled(room, Plugin, FIELD), written(FIELD)),
    careless!(110, "wasi-host", HOST, |room| smuggled(room, Wasi, FIELD), written(FIELD)),
    careless!(110, "wasi-0.3-host", HOST, |room| smuggled(room, Wasi3, FIELD), written(FIELD)),
    careless!(110, "extism-host", HOST, |room| smuggled(room, Extism, FIELD), written(FIELD)),
    careless!(110, "chunked", CHUNKED, |room| smuggled(room, Plugin, ENDS), written(ENDS)),
    careless!(110, "wasi-chunked", CHUNKED, |room| smuggled(room, Wasi, ENDS), written(ENDS)),
    careless!(110, "wasi-0.3-chunked", CHUNKED, |room| smuggled(room, Wasi3, ENDS), written(ENDS)),
    careless!(110, "extism-chunked", CHUNKED, |room| smuggled(room, Extism, ENDS), written(ENDS)),
];

/// Who came to the forbidden server outweighs what the guest says.
pub(super) fn visited(forbidden: &Web, seen: Verdict) -> Result<Verdict> {
    match (forbidden.seen().first(), seen) {
        (Some(head), _) => Ok(succeeded(head.lines().next().unwrap_or_default())),
        (None, (outcome, detail)) if outcome == "SUCCEEDED" => {
            Ok(("contained".into(), format!("it was not there: {detail}")))
        }
        (None, seen) => Ok(seen),
    }
}

/// A guest of this kind, which fetches what it is told to.
async fn fetcher(
    room: &Room,
    by: By,
    url: &str,
    rights: &[&str],
    shape: impl Fn(Terms) -> Result<Terms>,
) -> Result<std::result::Result<Running, Verdict>> {
    let (wasm, terms) = match by {
        Plugin => (room.guests().plugin.clone(), with(rights)),
        Wasi => (room.guests().wasi.clone(), Terms::task("fetch", url, rights)),
        Wasi3 => (room.guests().wasi3.clone(), Terms::task("fetch", url, rights)),
        Tcp => (room.guests().wasi.clone(), Terms::task("tcp-fetch", url, rights)),
        Tcp3 => (room.guests().wasi3.clone(), Terms::task("tcp-fetch", url, rights)),
        Extism => (extism()?, Terms::extism(rights)),
    };
    Ok(room.start(&wasm, shape(terms)?).await?.map_err(|refused| outcome(&refused)))
}

/// A module that hands its input to the host as a request.
fn extism() -> Result<Vec<u8>> {
    text(
        r#"(module
            (import "extism:host/env" "http_request" (func $fetch (param i64 i64) (result i64)))
            (import "extism:host/env" "input_offset" (func $input (result i64)))
            (import "extism:host/env" "length" (func $length (param i64) (result i64)))
            (import "extism:host/env" "output_set" (func $output (param i64 i64)))
            (func (export "fetch") (result i32) (local $body i64)
                (local.set $body (call $fetch (call $input) (i64.const 0)))
                (call $output (local.get $body) (call $length (local.get $body)))
                (i32.const 0)))"#,
    )
}

/// One request; `more` is put into it where the guest can be told.
async fn fetch(running: &Running, by: By, url: &str, more: Value) -> Verdict {
    match by {
        Plugin => {
            let mut args = json!({"url": url, "follow": true});
            extend(&mut args, more);
            of_call(running.call("fetch", &args, TIME).await)
        }
        Extism => {
            let mut request = json!({"url": url, "headers": {}});
            extend(&mut request, more);
            let input = json!({"input": request.to_string()});
            of_call(running.call("fetch", &input, TIME).await)
        }
        Wasi | Wasi3 | Tcp | Tcp3 => running.task(TIME).await,
    }
}

fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(all), Value::Object(more)) = (value, more) {
        all.extend(more);
    }
}

async fn led(room: Room, by: By, same_host: bool) -> Result<Verdict> {
    let forbidden = Web::start(|_| ok("secret")).await?;
    let host = if same_host { "shop.example" } else { "inner.example" };
    let to = format!("http://{host}:{}/", forbidden.port);
    let shop = Web::start(move |_| redirect(&to)).await?;
    let granted = format!("net.http:shop.example:{}", shop.port);
    let missing = format!("net.http:{host}:{}", forbidden.port);
    let mut rights = room.granted(&missing);
    rights.push(&granted);
    let url = format!("http://shop.example:{}/", shop.port);
    let names = || Names::here(&["shop.example", "inner.example"]);
    let shape = |terms: Terms| terms.names(names()).reachable("127.0.0.1/32");
    let running = match fetcher(&room, by, &url, &rights, shape).await? {
        Ok(running) => running,
        Err(seen) => return Ok(seen),
    };
    let seen = fetch(&running, by, &url, json!({})).await;
    if shop.seen().is_empty() {
        return Ok((format!("ended:nothing was asked: {}", seen.0), seen.1));
    }
    visited(&forbidden, seen)
}

async fn turned(room: Room, by: By, both: bool) -> Result<Verdict> {
    let granted = Web::start(|_| ok("here")).await?;
    let there = Ipv4Addr::new(127, 0, 0, 2);
    let forbidden = Web::start_on(there, granted.port, |_| ok("secret")).await?;
    let right = by.right(&format!("turn.example:{}", granted.port));
    let url = format!("http://turn.example:{}/", granted.port);
    let lifted = room.lifted;
    let shape = |terms: Terms| {
        let names = match (both, lifted) {
            (false, _) => Names::default().with("turn.example", &[&["127.0.0.1"], &["127.0.0.2"]]),
            (true, false) => Names::default().with("turn.example", &[&["127.0.0.1", "127.0.0.2"]]),
            // Whichever is tried first.
            (true, true) => Names::default().with("turn.example", &[&["127.0.0.2", "127.0.0.1"]]),
        };
        terms.names(names).reachable(if lifted { "127.0.0.0/8" } else { "127.0.0.1/32" })
    };
    let running = match fetcher(&room, by, &url, &[right.as_str()], shape).await? {
        Ok(running) => running,
        Err(seen) => return Ok(seen),
    };
    let first = fetch(&running, by, &url, json!({})).await;
    if both {
        return visited(&forbidden, first);
    }
    if granted.seen().is_empty() {
        return Ok((format!("ended:the first was not answered: {}", first.0), first.1));
    }
    let second = fetch(&running, by, &url, json!({})).await;
    visited(&forbidden, second)
}

async fn private(room: Room, by: By, address: &'static str) -> Result<Verdict> {
    let forbidden = Web::start(|_| ok("secret")).await?;
    let right = by.right(&format!("inner.example:{}", forbidden.port));
    let url = format!("http://inner.example:{}/", forbidden.port);
    let lifted = room.lifted;
    let shape = |terms: Terms| {
        let terms = terms.names(Names::default().with("inner.example", &[&[address]]));
        if !lifted {
            return Ok(terms);
        }
        terms.names(Names::here(&["inner.example"])).reachable("127.0.0.0/8")
    };
    let running = match fetcher(&room, by, &url, &[right.as_str()], shape).await? {
        Ok(running) => running,
        Err(seen) => return Ok(seen),
    };
    let seen = fetch(&running, by, &url, json!({})).await;
    visited(&forbidden, seen)
}

async fn literal(room: Room, by: By, address: &str) -> Result<Verdict> {
    let forbidden = Web::start(|_| ok("secret")).await?;
    let right = by.right(&format!("{address}:{}", forbidden.port));
    let url = format!("http://{address}:{}/", forbidden.port);
    let lifted = room.lifted;
    let mut rights = room.granted(&right);
    let open = by.right("*.open.example:*");
    rights.push(&open);
    let shape = |terms: Terms| if lifted { terms.reachable("127.0.0.0/8") } else { Ok(terms) };
    let running = match fetcher(&room, by, &url, &rights, shape).await? {
        Ok(running) => running,
        Err(seen) => return Ok(seen),
    };
    let seen = fetch(&running, by, &url, json!({})).await;
    visited(&forbidden, seen)
}

/// What a resolver of the system's makes of a number.
async fn looked_up() -> Result<bool> {
    let web = Web::start(|_| ok("secret")).await?;
    let to = format!("2130706433:{}", web.port);
    let Ok(mut stream) = tokio::net::TcpStream::connect(to).await else { return Ok(false) };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await?;
    Ok(!web.seen().is_empty())
}

/// What is put into a request, and where.
#[derive(Clone, Copy)]
struct Part {
    method: &'static str,
    path: &'static str,
    field: (&'static str, &'static str),
}

const PLAIN: Part = Part { method: "GET", path: "/", field: ("x-plain", "1") };
const NAME: Part = Part { field: ("x-a: 1\r\nx-smuggled", "yes"), ..PLAIN };
const VALUE: Part =
    Part { field: ("x-a", "1\r\n\r\nGET /second HTTP/1.1\r\nx-smuggled: yes"), ..PLAIN };
const METHOD: Part = Part { method: "GET / HTTP/1.1\r\nx-smuggled: yes\r\nx-rest:", ..PLAIN };
const PATH: Part = Part { path: "/ HTTP/1.1\r\nx-smuggled: yes\r\nx-rest:", ..PLAIN };
const FIELD: Part = Part { field: ("Host", "smuggled.example"), ..PLAIN };
const ENDS: Part = Part { field: ("Transfer-Encoding", "smuggled, chunked"), ..PLAIN };

/// Whether something that was put in counts at the server as if it were the host's own.
fn counts(heads: &[String]) -> bool {
    let field = |line: &str| {
        let line = line.to_ascii_lowercase();
        line.starts_with("x-smuggled:")
            || line == "host: smuggled.example"
            || line.starts_with("transfer-encoding: smuggled")
    };
    heads.len() > 1 || heads.iter().any(|head| head.lines().any(field))
}

async fn smuggled(room: Room, by: By, part: Part) -> Result<Verdict> {
    let web = Web::start(|_| ok("here")).await?;
    let right = format!("net.http:shop.example:{}", web.port);
    let url = format!("http://shop.example:{}", web.port);
    let shape = |terms: Terms| {
        let terms = terms.names(Names::here(&["shop.example"])).reachable("127.0.0.1/32")?;
        if !matches!(by, Wasi | Wasi3) {
            return Ok(terms);
        }
        let escape = |text: &str| text.replace('\r', "\\r").replace('\n', "\\n");
        let (task, what) = if part.method != PLAIN.method {
            ("split", format!("{url}\nmethod\n{}", escape(part.method)))
        } else if part.path != PLAIN.path {
            ("split", format!("{url}\npath\n{}", escape(part.path)))
        } else {
            ("field", format!("{url}\n{}|{}", escape(part.field.0), escape(part.field.1)))
        };
        Ok(Terms { env: vec![("TASK".into(), task.into()), ("WHAT".into(), what)], ..terms })
    };
    let running = match fetcher(&room, by, &url, &[right.as_str()], shape).await? {
        Ok(running) => running,
        Err(seen) => return Ok(seen),
    };
    let (name, value) = part.field;
    let headers = match by {
        Extism => json!({ name: value }),
        _ => json!([[name, value]]),
    };
    let more = json!({"method": part.method, "headers": headers});
    let seen = fetch(&running, by, &format!("{url}{}", part.path), more).await;
    let heads = web.seen();
    if counts(&heads) {
        return Ok(succeeded(format!("{heads:?}")));
    }
    Ok(match heads.first() {
        // It came without what was put in.
        Some(head) => ("contained".into(), format!("{head:?}")),
        None => seen,
    })
}

/// A client that writes what it is told to.
async fn written(part: Part) -> Result<bool> {
    let web = Web::start(|_| ok("here")).await?;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", web.port)).await?;
    let (name, value) = part.field;
    let Part { method, path, .. } = part;
    let request = format!("{method} {path} HTTP/1.1\r\n{name}: {value}\r\nx-rest: 1\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await?;
    // A second one may still be on its way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(counts(&web.seen()))
}
