//! Does what `TASK` says with what `WHAT` says, asynchronously, and prints what came of it.

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
            // One request, and the one that its answer leads to.
            "follow" => {
                let first = get(&what).await;
                println!("{first}");
                if let Some((_, to)) = first.split_once("location=") {
                    println!("{}", get(to).await);
                }
            }
            "open" => println!("{}", open(&what).await),
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
            other => println!("no task {other:?}"),
        }
        Ok(())
    }
}

async fn get(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "no scheme".into() };
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let (trailers, no_trailers) = wit_future::new(|| Ok(None));
    drop(trailers);
    let (request, _sent) = Request::new(Fields::new(), None, no_trailers, None);
    let set = request.set_method(&Method::Get).is_ok()
        && request.set_scheme(Some(&scheme)).is_ok()
        && request.set_authority(Some(authority)).is_ok()
        && request.set_path_with_query(Some(path)).is_ok();
    if !set {
        return "not a request".into();
    }
    let response = match client::send(request).await {
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
