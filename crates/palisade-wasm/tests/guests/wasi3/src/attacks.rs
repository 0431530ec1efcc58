//! What a hostile program tries through WASI 0.3. Each task gives one line: `reached` with what, or `blocked` with
//! the reason. Nothing here goes through the standard library, which speaks WASI 0.2.

use wasip3::{
    clocks::monotonic_clock,
    filesystem::{
        preopens,
        types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags},
    },
    http::types::{Fields, Method},
    wit_stream,
};

/// Does a task of this module; what it works on stands in lines, paths as they are in the first folder.
pub async fn run(task: &str, what: &str) -> String {
    let mut lines = what.lines();
    let mut next = || lines.next().unwrap_or_default();
    match task {
        // One request, and the one that its answer leads to.
        "fetch" => {
            let first = crate::get(next()).await;
            let last = match first.split_once("location=") {
                Some((_, to)) => crate::get(to).await,
                None => first,
            };
            came(&last)
        }
        "field" => field(next(), next()).await,
        "split" => split(next(), next(), next()).await,
        other => match preopens::get_directories().into_iter().next() {
            Some((folder, _)) => match file(other, &folder, next(), next()).await {
                Ok(text) => format!("reached {}", text.escape_default()),
                Err(error) => format!("blocked {}", word(&error)),
            },
            None => "blocked no-folder".into(),
        },
    }
}

/// The last word of an error's name, or what this module says itself.
fn word(error: &ErrorCode) -> String {
    match error {
        ErrorCode::Other(Some(why)) => why.clone(),
        error => format!("{error:?}").replace("ErrorCode::", ""),
    }
}

async fn file(
    task: &str,
    folder: &Descriptor,
    one: &str,
    other: &str,
) -> Result<String, ErrorCode> {
    let follow = PathFlags::SYMLINK_FOLLOW;
    let open = async |flags, rights| folder.open_at(follow, one.to_owned(), flags, rights).await;
    let done = |word: &str| Ok(word.to_owned());
    match task {
        "raw" => read(folder, one).await,
        // A link of the guest's own, and what is behind it.
        "own-link" => {
            folder.symlink_at(other.to_owned(), one.to_owned()).await?;
            read(folder, one).await
        }
        "create" => {
            open(OpenFlags::CREATE | OpenFlags::EXCLUSIVE, DescriptorFlags::WRITE).await?;
            done("made")
        }
        "write-through" => {
            let file = open(OpenFlags::CREATE, DescriptorFlags::WRITE).await?;
            append(&file, b"made").await?;
            done("made")
        }
        "append" => {
            append(&open(OpenFlags::empty(), DescriptorFlags::WRITE).await?, b"more").await?;
            done("written")
        }
        "truncate" => {
            open(OpenFlags::TRUNCATE, DescriptorFlags::WRITE).await?;
            done("cut")
        }
        "remove" => {
            folder.unlink_file_at(one.to_owned()).await?;
            done("removed")
        }
        "rename" => {
            folder.rename_at(one.to_owned(), folder, other.to_owned()).await?;
            done("renamed")
        }
        "hardlink" => {
            folder.link_at(PathFlags::empty(), one.to_owned(), folder, other.to_owned()).await?;
            done("linked")
        }
        // Reads again and again, until something else than the first content is there.
        "race" => race(folder, one, other).await,
        other => done(&format!("no task {other:?}")),
    }
}

async fn read(folder: &Descriptor, path: &str) -> Result<String, ErrorCode> {
    let (follow, open) = (PathFlags::SYMLINK_FOLLOW, OpenFlags::empty());
    let file = folder.open_at(follow, path.to_owned(), open, DescriptorFlags::READ).await?;
    let (bytes, ended) = file.read_via_stream(0);
    let bytes = bytes.collect().await;
    ended.await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn append(file: &Descriptor, bytes: &[u8]) -> Result<(), ErrorCode> {
    let (mut writer, data) = wit_stream::new::<u8>();
    let ended = file.append_via_stream(data);
    let write = async move {
        writer.write_all(bytes.to_vec()).await;
    };
    crate::both(async { ended.await }, write).await.0
}

/// That it was ended inside counts only where the path was read often, and with what stands inside.
async fn race(folder: &Descriptor, path: &str, ms: &str) -> Result<String, ErrorCode> {
    let until = monotonic_clock::now() + ms.parse::<u64>().unwrap() * 1_000_000;
    let (mut rounds, mut inside) = (0, 0);
    while monotonic_clock::now() < until {
        rounds += 1;
        match read(folder, path).await {
            Ok(text) if text.starts_with("secret") => return Ok(format!("after {rounds}")),
            Ok(_) => inside += 1,
            Err(_) => {}
        }
    }
    let why = if rounds > 50 && inside > 0 { "inside" } else { "too-slow" };
    Err(ErrorCode::Other(Some(why.to_owned())))
}

fn unescape(text: &str) -> String {
    text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0")
}

/// What a request came to.
fn came(line: &str) -> String {
    match line.split_once("status 200") {
        Some((_, rest)) => format!("reached {rest}"),
        None => format!("blocked {}", line.replace("error ErrorCode::", "")),
    }
}

/// Sends a header field to a server; names and values stand with their escapes.
async fn field(url: &str, field: &str) -> String {
    let (name, value) = field.split_once('|').unwrap();
    let fields = Fields::new();
    if let Err(error) = fields.append(&unescape(name), unescape(value).as_bytes()) {
        return format!("blocked {error:?}");
    }
    let Some((scheme, authority, path)) = crate::parts(url) else { return "blocked url".into() };
    came(&crate::send(fields, &Method::Get, &scheme, authority, path, None).await)
}

/// Puts a second request into a part of the first one.
async fn split(url: &str, part: &str, text: &str) -> String {
    let Some((scheme, authority, path)) = crate::parts(url) else { return "blocked url".into() };
    let text = unescape(text);
    let (mut method, mut path, mut authority) =
        (Method::Get, path.to_owned(), authority.to_owned());
    match part {
        "method" => method = Method::Other(text),
        "path" => path = text,
        _ => authority = text,
    }
    let line = crate::send(Fields::new(), &method, &scheme, &authority, &path, None).await;
    came(&line.replace("not a request", "not-a-request"))
}
