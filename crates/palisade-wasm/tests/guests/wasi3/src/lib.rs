//! Does what `TASK` says with what `WHAT` says, asynchronously, and prints what came of it.

mod attacks;
mod files;
mod lists;
mod sockets;

use std::{future::poll_fn, pin::pin, task::Poll};

use wasip3::{
    clocks::monotonic_clock,
    filesystem::{
        preopens,
        types::{DescriptorFlags, OpenFlags, PathFlags},
    },
    http::{
        client,
        types::{Fields, Method, Request, Response, Scheme},
    },
    wit_future, wit_stream,
};

wasip3::cli::command::export!(Guest);

struct Guest;

impl wasip3::exports::cli::run::Guest for Guest {
    async fn run() -> Result<(), ()> {
        let what = std::env::var("WHAT").unwrap_or_default();
        match std::env::var("TASK").unwrap_or_default().as_str() {
            "get" => println!("{}", get(&what).await),
            // Five bytes of the length that is announced: all of it, or not.
            "post" => println!("{}", request(&what, Some((5, b"12345"))).await),
            "short" => println!("{}", request(&what, Some((9, b"12345"))).await),
            "long" => println!("{}", request(&what, Some((3, b"12345"))).await),
            // One request, and the one that its answer leads to.
            "follow" => {
                let first = get(&what).await;
                println!("{first}");
                if let Some((_, to)) = first.split_once("location=") {
                    println!("{}", get(to).await);
                }
            }
            "open" => println!("{}", open(&what).await),
            "again" => println!("{}", files::again(&what, Some).await),
            // The streams alone; the handles that they were made from are dropped.
            "again-streams" => {
                println!("{}", files::again(&what, |file| file.read_via_stream(0)).await)
            }
            "list" => println!("{}", lists::list(&what).await),
            "listings" => println!("{}", lists::hold(&what).await),
            // Two waits at once, so that they have to be concurrent.
            "sleep" => monotonic_clock::wait_for(what.parse::<u64>().unwrap() * 1_000_000).await,
            // Streams that nobody reads.
            "streams" => {
                let mut kept = Vec::new();
                for _ in 0..what.parse::<u32>().unwrap() {
                    kept.push(wit_stream::new::<u8>());
                }
                println!("made {}", kept.len());
            }
            task @ ("tcp" | "tcp-fetch" | "tcp-large" | "tcp-many" | "tcp-twice" | "udp" | "listen" | "bind") => {
                println!("{}", sockets::run(task, &what).await)
            }
            other => println!("{}", attacks::run(other, &what).await),
        }
        Ok(())
    }
}

async fn get(url: &str) -> String {
    request(url, None).await
}

/// Both at once: a body is read while it is written.
async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut a, mut b) = (None, None);
    poll_fn(|cx| {
        if a.is_none()
            && let Poll::Ready(value) = one.as_mut().poll(cx)
        {
            a = Some(value);
        }
        if b.is_none()
            && let Poll::Ready(value) = other.as_mut().poll(cx)
        {
            b = Some(value);
        }
        if a.is_some() && b.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (a.unwrap(), b.unwrap())
}

/// Scheme, authority and path of a URL.
fn parts(url: &str) -> Option<(Scheme, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    Some((scheme, authority, path))
}

/// A request, with a body of these bytes behind a length; without one, a GET.
async fn request(url: &str, body: Option<(u64, &[u8])>) -> String {
    let Some((scheme, authority, path)) = parts(url) else { return "no scheme".into() };
    let fields = Fields::new();
    if let Some((length, _)) = body
        && let Err(error) = fields.append("content-length", length.to_string().as_bytes())
    {
        return format!("field {error:?}");
    }
    let method = if body.is_some() { Method::Post } else { Method::Get };
    send(fields, &method, &scheme, authority, path, body.map(|(_, bytes)| bytes)).await
}

/// One request, as one line: the status with the body, or the error.
async fn send(
    fields: Fields,
    method: &Method,
    scheme: &Scheme,
    authority: &str,
    path: &str,
    body: Option<&[u8]>,
) -> String {
    let (trailers, no_trailers) = wit_future::new(|| Ok(None));
    let (writes, stream) = match body {
        Some(_) => {
            let (writer, stream) = wit_stream::new::<u8>();
            (Some(writer), Some(stream))
        }
        None => (None, None),
    };
    let (request, _sent) = Request::new(fields, stream, no_trailers, None);
    let set = request.set_method(method).is_ok()
        && request.set_scheme(Some(scheme)).is_ok()
        && request.set_authority(Some(authority)).is_ok()
        && request.set_path_with_query(Some(path)).is_ok();
    if !set {
        return "not a request".into();
    }
    let writing = async {
        if let (Some(mut writer), Some(bytes)) = (writes, body) {
            writer.write_all(bytes.to_vec()).await;
        }
        drop(trailers);
    };
    let response = match both(client::send(request), writing).await.0 {
        Ok(response) => response,
        Err(error) => return format!("error {error:?}"),
    };
    let status = response.get_status_code();
    let location = response.get_headers().get("location").into_iter().next();
    let (done, result) = wit_future::new(|| Ok(()));
    drop(done);
    let (body, _trailers) = Response::consume_body(response, result);
    let body = body.collect().await;
    let mut text = format!("status {status} {:?}", String::from_utf8_lossy(&body));
    if let Some(location) = location {
        text.push_str(&format!(" location={}", String::from_utf8_lossy(&location)));
    }
    text
}

/// Opens a file of the first folder whose path is before it.
async fn open(path: &str) -> String {
    for (folder, name) in preopens::get_directories() {
        if let Some(rest) = path.strip_prefix(&name).and_then(|rest| rest.strip_prefix('/')) {
            let (follow, open, flags) =
                (PathFlags::SYMLINK_FOLLOW, OpenFlags::empty(), DescriptorFlags::READ);
            let opened = folder.open_at(follow, rest.to_owned(), open, flags).await;
            return match opened {
                Ok(_) => "opened".into(),
                Err(error) => format!("error {error:?}"),
            };
        }
    }
    "no folder".into()
}
