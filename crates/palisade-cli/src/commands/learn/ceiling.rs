//! The ceiling: what is let happen while it learns.

use std::path::Path;

use palisade_model::{Capability, CapabilitySet, Kind};

use crate::{
    cli::native::Learn, commands::mcp::serve::read_manifest, grant, session::shown,
    trouble::Trouble,
};

/// What the options allow.
pub(crate) fn of(args: &Learn) -> Result<CapabilitySet, Trouble> {
    let mut ceiling = CapabilitySet::new();
    if let Some(file) = &args.within {
        let requested = read_manifest(file)?.requested();
        ceiling.extend(requested.required.iter().chain(requested.optional.iter()).cloned());
        return Ok(ceiling);
    }
    let here = std::env::current_dir()
        .map_err(|error| Trouble::usage(format!("the current folder cannot be named: {error}")))?;
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from).filter(|p| p.is_absolute());
    if args.read.is_empty() && args.write.is_empty() {
        let right = tree(Kind::FsRead, &here)?;
        if let Some(why) = palisade_process::refuses(&right) {
            let trouble = Trouble::usage(format!("the current folder cannot be shown: {why}"));
            return Err(trouble.hint("name what it may read and write with --read and --write"));
        }
        ceiling.insert(right);
    }
    for (paths, kind) in [(&args.read, Kind::FsRead), (&args.write, Kind::FsWrite)] {
        for path in paths {
            let right = tree(kind, path)?;
            if let Some(why) = palisade_process::refuses(&right) {
                return Err(Trouble::usage(format!("{} cannot be granted: {why}", shown(path))));
            }
            ceiling.insert(right);
        }
    }
    let named = |kind: Kind, scope: &str| {
        Capability::new(kind, scope).map_err(|error| Trouble::usage(error.to_string()))
    };
    for host in &args.net {
        ceiling.insert(named(Kind::NetHttp, host)?);
        ceiling.insert(named(Kind::NetTcp, host)?);
    }
    for name in &args.env {
        let right = named(Kind::Env, name)?;
        if std::env::var_os(name).is_none() {
            let name = palisade_model::text::escape(name, 100);
            return Err(Trouble::usage(format!("--env {name}: there is no such variable here")));
        }
        ceiling.insert(right);
    }
    for text in &args.grant {
        ceiling.insert(grant::parse(text, &here, home.as_deref())?);
    }
    Ok(ceiling)
}

/// The right to a file, or to a folder with all that it holds, by its real path.
fn tree(kind: Kind, path: &Path) -> Result<Capability, Trouble> {
    let wrong = |what: &dyn std::fmt::Display| Trouble::usage(format!("{}: {what}", shown(path)));
    let real = std::fs::canonicalize(path).map_err(|e| wrong(&e))?;
    let folder = real.is_dir();
    let real = real.to_str().ok_or_else(|| wrong(&"its real path is not UTF-8 text"))?;
    let scope = match (folder, real) {
        (false, real) => real.to_owned(),
        (true, "/") => "/**".to_owned(),
        (true, real) => format!("{real}/**"),
    };
    let right = Capability::new(kind, &scope).map_err(|e| wrong(&e))?;
    // A name that ends like a wildcard would mean more as a scope than it is.
    match right.path() {
        Some(scope) if scope.path() == real && scope.covers_below() == folder => Ok(right),
        _ => Err(wrong(&"its path cannot be written as a capability")),
    }
}
