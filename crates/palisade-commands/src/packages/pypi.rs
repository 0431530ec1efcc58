//! Requirements of PyPI: `name`, `name@1.2`, `name[extra]>=1,<2` (PEP 508, the part without addresses).

use palisade_model::text::escape;

use super::Spec;
use crate::{CommandError, analyse::SHOWN};

/// A name in its normal form (PEP 503).
pub(crate) fn normal_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for part in name.split(['-', '_', '.']).filter(|part| !part.is_empty()) {
        if !out.is_empty() {
            out.push('-');
        }
        out.push_str(&part.to_ascii_lowercase());
    }
    out
}

/// Reads a requirement, and the name as it was written. `name@VERSION` is uv's way of `name==VERSION`, and `name@latest` of
/// `name`.
pub(super) fn spec(text: &str) -> Result<(Spec, String), CommandError> {
    let shown = escape(text, SHOWN);
    let text = text.trim();
    if text.contains("://")
        || text.starts_with("git+")
        || text.starts_with(['.', '/', '~'])
        || text.ends_with(".whl")
        || text.ends_with(".tar.gz")
        || text.ends_with(".zip")
    {
        return Err(CommandError::usage(
            format!("{shown} is not a package of the index"),
            format!(
                "install it yourself (uv tool install {shown}, or pipx install), and write the name of its command"
            ),
        ));
    }
    let bad = || {
        CommandError::usage(
            format!("{shown} is no requirement for a Python package"),
            "write PACKAGE, PACKAGE==VERSION or PACKAGE[EXTRA]",
        )
    };
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end).ok_or_else(bad)?;
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    if !edge(name.as_bytes().first()) || !edge(name.as_bytes().last()) || name.len() > 128 {
        return Err(bad());
    }
    let (extras, version) = match rest.trim_start().strip_prefix('[') {
        Some(inner) => {
            let (extras, version) = inner.split_once(']').ok_or_else(bad)?;
            (format!("[{}]", extras.replace(' ', "")), version.trim())
        }
        None => (String::new(), rest.trim()),
    };
    let plain = |s: &str, more: &[u8]| {
        s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || more.contains(&b))
    };
    if !plain(&extras, b"[],") {
        return Err(bad());
    }
    let version = match version.strip_prefix('@').map(str::trim) {
        Some("latest") => String::new(),
        Some(exact) if !exact.is_empty() && plain(exact, b"+!") => format!("=={exact}"),
        Some(_) => return Err(bad()),
        None if version.is_empty() => String::new(),
        None if version.starts_with(['=', '<', '>', '!', '~']) && plain(version, b"=<>!~*+, ") => {
            version.replace(' ', "")
        }
        None => return Err(bad()),
    };
    let normal = normal_name(name);
    let request = format!("{normal}{extras}{version}");
    Ok((Spec { name: normal, request }, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::spec;

    #[test]
    fn requirements_are_read_and_others_refused() {
        for (text, request) in [
            ("mcp-server-time", "mcp-server-time"),
            ("MCP_Server.Time@1.2", "mcp-server-time==1.2"),
            ("x@latest", "x"),
            ("x[a, b]>=1, <2", "x[a,b]>=1,<2"),
            ("x==1.0.*", "x==1.0.*"),
            ("x~=1.0", "x~=1.0"),
        ] {
            assert_eq!(spec(text).unwrap().0.request, request, "{text}");
        }
        for bad in [
            "",
            "-x",
            "x-",
            "git+https://h/x",
            "./x",
            "/x",
            "x.whl",
            "x@",
            "x[",
            "x; os_name",
            "x @ https://h/y",
            "x==1;y",
            "x$(y)",
            "x\ny",
            "--index-url=h",
        ] {
            assert!(spec(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
