//! What a guest sees of a folder, and what its listings keep of the host.

use std::{
    fs,
    ops::RangeInclusive,
    os::unix::ffi::OsStrExt as _,
    time::{Duration, Instant},
};

use palisade_model::Limits;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use super::{does, ground, with};
use crate::testing::{Launch, wasi3_guest};

/// Threads for what blocks that the host of a test has: with as many listings its pool would be used up.
const THREADS: usize = 8;
/// Open files that a launch of these tests may have.
const FILES: u32 = 64;

fn launch<'a>(env: &'a [(&'a str, &'a str)], rights: &'a [&'a str]) -> Launch<'a> {
    let limits = Some(Limits { files: FILES, ..Limits::default() });
    Launch { env, rights, limits, ..Launch::default() }
}

/// What the guest of WASI 0.3 sees of a folder.
async fn listed(path: &str, right: &str) -> Vec<String> {
    let env = [("TASK", "list"), ("WHAT", path)];
    let rights = ["net.http:nowhere.example:80", right];
    let mut launched = launch(&env, &rights).of(wasi3_guest()).await.unwrap();
    let answer = launched.call("run", json!({})).await;
    assert!(answer.is_ok(), "{answer:?} {:?}", launched.lines());
    launched.lines()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_shows_what_is_in_the_folder() {
    let (_ground, root) = ground();
    let texts = format!("{root}/texts");
    let reads = format!("fs.read:{texts}/**");
    mknodat(CWD, format!("{texts}/pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    // More than a page, and names as long as they may be.
    for n in 0..300 {
        fs::write(format!("{texts}/inner/{n:0>255}"), "").unwrap();
    }
    let kinds = [
        ("absolute", "SymbolicLink"),
        ("folder", "SymbolicLink"),
        ("inner", "Directory"),
        ("one", "RegularFile"),
        ("pipe", "Fifo"),
        ("relative", "SymbolicLink"),
        ("within", "SymbolicLink"),
    ];
    let mut inner: Vec<_> = (0..300).map(|n| (format!("{n:0>255}"), "RegularFile")).collect();
    inner.push(("two".to_owned(), "RegularFile"));
    let lines = |kinds: &[(String, &str)]| -> Vec<String> {
        kinds.iter().map(|(name, kind)| format!("{name} DescriptorType::{kind}")).collect()
    };
    let kinds = kinds.map(|(name, kind)| (name.to_owned(), kind));
    for (path, expected) in
        [(texts.clone(), lines(&kinds)), (format!("{texts}/inner"), lines(&inner))]
    {
        assert_eq!(does("entries", &path, &[&reads]).await, expected, "{path} in WASI 0.2");
        let mut seen = listed(&path, &reads).await;
        assert_eq!(seen.pop().as_deref(), Some("Ok(())"), "{path} in WASI 0.3");
        assert_eq!(seen, expected, "{path} in WASI 0.3");
    }

    let one = format!("{texts}/one");
    assert_eq!(does("entries", &one, &[&reads]).await, ["not-directory"]);
    assert_eq!(listed(&one, &reads).await, ["Err(ErrorCode::NotDirectory)"]);

    // What WASI cannot say is an error: the end in WASI 0.3, and one entry in WASI 0.2.
    let folder = format!("{root}/private");
    let reads = format!("fs.read:{folder}/**");
    fs::write(std::path::Path::new(&folder).join(std::ffi::OsStr::from_bytes(b"\xff")), "")
        .unwrap();
    assert_eq!(
        does("entries", &folder, &[&reads]).await,
        ["illegal-byte-sequence", "key DescriptorType::RegularFile"]
    );
    let seen = listed(&folder, &reads).await;
    assert_eq!(seen.last().unwrap(), "Err(ErrorCode::IllegalByteSequence)", "{seen:?}");
}

/// What a guest of WASI 0.3 does with listings that it holds.
struct Held {
    count: u32,
    reads_first: bool,
    /// What it says of them, and of a file.
    says: &'static str,
    /// How many descriptors in the granted folder the host has meanwhile.
    descriptors: RangeInclusive<usize>,
}

/// Holds listings in a host with few threads, and looks whether they can be used by others meanwhile.
fn is_not_held_up(held: &Held) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(THREADS)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (_ground, root) = ground();
        let texts = format!("fs.read:{root}/texts/**");
        let (count, first) = (held.count, u8::from(held.reads_first));
        // More than a page, so that it has not been read to its end with the first entry.
        for n in 0..300 {
            fs::write(format!("{root}/texts/inner/{n}"), "").unwrap();
        }
        let what = format!("{root}/texts/inner\n{root}/texts/one\n{count}\n{first}\n1500");
        let env = [("TASK", "listings"), ("WHAT", &*what)];
        let rights = ["net.http:nowhere.example:80", &*texts];
        let mut launched = launch(&env, &rights).of(wasi3_guest()).await.unwrap();
        let host = launched.host.clone();
        let call = launched.call_within("run", json!({}), Duration::from_secs(20));
        let look = async {
            let begun = Instant::now();
            while host.lines.lock().unwrap().is_empty() && begun.elapsed() < Duration::from_secs(15)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let free = tokio::task::spawn_blocking(|| ());
            let free = tokio::time::timeout(Duration::from_secs(1), free).await.is_ok();
            (free, descriptors(&root))
        };
        let (answer, (free, descriptors)) = tokio::join!(call, look);
        assert!(free, "no thread of the host was free");
        assert!(answer.is_ok(), "{answer:?} {:?}", launched.lines());
        assert_eq!(launched.lines(), [held.says, "opened"]);
        assert!(held.descriptors.contains(&descriptors), "{descriptors} descriptors");
    });
}

/// How many descriptors of this process lead below a folder; none where that cannot be asked.
fn descriptors(root: &str) -> usize {
    let all = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    all.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(root))).count()
}

#[test]
fn listings_that_nobody_reads_take_no_thread_and_no_descriptor() {
    // Beyond the limit they are refused, and so is a file meanwhile.
    is_not_held_up(&Held {
        count: 600,
        reads_first: false,
        says: "600 held, [], error ErrorCode::Quota",
        descriptors: 0..=4,
    });
}

#[test]
fn listings_that_are_left_off_take_the_places_of_files_and_no_thread() {
    // One place is the folder's own, which the guest opened.
    is_not_held_up(&Held {
        count: 600,
        reads_first: true,
        says: r#"63 held, ["Err(ErrorCode::Quota)"], error ErrorCode::Quota"#,
        descriptors: 0..=68,
    });
    is_not_held_up(&Held {
        count: 20,
        reads_first: true,
        says: "20 held, [], opened",
        descriptors: 0..=24,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_of_wasi_0_2_take_the_places_of_files() {
    let (_ground, root) = ground();
    let texts = format!("fs.read:{root}/texts/**");
    let launch = launch(&[], &[]);
    let rights = [&*texts];
    let launch = Launch { rights: &rights, ..launch };
    let lines = with("listings", &format!("{root}/texts/inner\n600"), launch).await;
    assert_eq!(lines, [r#"(63, Some("quota")) (63, Some("quota"))"#]);
}
