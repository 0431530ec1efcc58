//! How many files can be open at once.

use wasip3::filesystem::{
    preopens,
    types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags},
};

/// Opens a file of the first folder as often as it may, and keeps what `keep` makes of each; lets go of three, and
/// does so again.
pub async fn again<T>(path: &str, keep: impl Fn(Descriptor) -> T) -> String {
    let (folder, name) = preopens::get_directories().into_iter().next().unwrap();
    let path = path.strip_prefix(&name).unwrap().trim_start_matches('/');
    let mut kept = Vec::new();
    let first = fill(&folder, path, &keep, &mut kept).await;
    kept.truncate(first.0 - 3);
    format!("{first:?} {:?}", fill(&folder, path, &keep, &mut kept).await)
}

async fn fill<T>(
    folder: &Descriptor,
    path: &str,
    keep: &impl Fn(Descriptor) -> T,
    kept: &mut Vec<T>,
) -> (usize, ErrorCode) {
    loop {
        let (follow, open, flags) = (PathFlags::empty(), OpenFlags::empty(), DescriptorFlags::READ);
        match folder.open_at(follow, path.to_owned(), open, flags).await {
            Ok(file) => kept.push(keep(file)),
            Err(error) => return (kept.len(), error),
        }
    }
}
