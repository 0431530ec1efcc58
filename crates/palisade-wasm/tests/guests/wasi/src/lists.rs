//! Listing folders as they are given, without the standard library, which looks at them again with each part.

use wasip2::filesystem::{
    preopens,
    types::{Descriptor, DescriptorFlags, DirectoryEntryStream, ErrorCode, OpenFlags, PathFlags},
};

/// Prints the entries of a folder in order, and what it is told instead of an entry.
pub fn entries(path: &str) {
    let mut lines = Vec::new();
    match open(path).and_then(|folder| folder.read_directory()) {
        Ok(listing) => {
            while let Some(line) = next(&listing).transpose() {
                lines.push(line.unwrap_or_else(|error| error.name().to_owned()));
            }
        }
        Err(error) => lines.push(error.name().to_owned()),
    }
    lines.sort();
    for line in lines {
        println!("{line}");
    }
}

/// Lists a folder so many times at once, of each the first entry, and lets go of all of them; does so again.
pub fn hold(path: &str, count: usize) -> String {
    let fill = || -> (usize, Option<&str>) {
        let folder = open(path).unwrap();
        let mut held = Vec::new();
        while held.len() < count {
            match folder.read_directory() {
                Ok(listing) => {
                    next(&listing).unwrap();
                    held.push(listing);
                }
                Err(error) => return (held.len(), Some(error.name())),
            }
        }
        (held.len(), None)
    };
    format!("{:?} {:?}", fill(), fill())
}

fn next(listing: &DirectoryEntryStream) -> Result<Option<String>, ErrorCode> {
    let entry = listing.read_directory_entry()?;
    Ok(entry.map(|entry| format!("{} {:?}", entry.name, entry.type_)))
}

/// What stands at a path in the first folder, or that folder.
fn open(path: &str) -> Result<Descriptor, ErrorCode> {
    let (folder, name) = preopens::get_directories().into_iter().next().unwrap();
    let path = path.strip_prefix(&name).unwrap().trim_start_matches('/');
    if path.is_empty() {
        return Ok(folder);
    }
    folder.open_at(PathFlags::empty(), path, OpenFlags::empty(), DescriptorFlags::READ)
}
