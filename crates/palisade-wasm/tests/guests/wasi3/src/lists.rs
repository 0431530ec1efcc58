//! Listing folders: wholly, and without reading what comes.

use wasip3::{
    clocks::monotonic_clock,
    filesystem::{
        preopens,
        types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags},
    },
};

const MILLISECOND: u64 = 1_000_000;

/// Prints the entries of a folder in order, and gives how the listing ended.
pub async fn list(path: &str) -> String {
    let (entries, end) = open(path).await.read_directory();
    let mut entries = entries.collect().await;
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    for entry in entries {
        println!("{} {:?}", entry.name, entry.type_);
    }
    format!("{:?}", end.await)
}

/// Lists a folder so many times at once, and of each reads the first entry, or nothing. Tells how many listings it
/// holds, why the others ended, and what becomes of a file then; after so many milliseconds lets go of all of them
/// and tries the file again.
pub async fn hold(what: &str) -> String {
    let mut lines = what.lines();
    let (path, file) = (lines.next().unwrap(), lines.next().unwrap());
    let mut number = || lines.next().unwrap().parse::<u64>().unwrap();
    let (count, first, wait) = (number(), number() > 0, number());
    let folder = open(path).await;
    let (mut held, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (mut entries, end) = folder.read_directory();
        if first && entries.next().await.is_none() {
            ends.push(format!("{:?}", end.await));
        } else {
            held.push((entries, end));
        }
    }
    ends.dedup();
    println!("{} held, {ends:?}, {}", held.len(), crate::open(file).await);
    monotonic_clock::wait_for(wait * MILLISECOND).await;
    drop(held);
    crate::open(file).await
}

/// What stands at a path in the first folder, or that folder.
async fn open(path: &str) -> Descriptor {
    let (folder, name) = preopens::get_directories().into_iter().next().unwrap();
    let path = path.strip_prefix(&name).unwrap().trim_start_matches('/');
    if path.is_empty() {
        return folder;
    }
    let (follow, open, flags) = (PathFlags::empty(), OpenFlags::empty(), DescriptorFlags::READ);
    folder.open_at(follow, path.to_owned(), open, flags).await.unwrap()
}
