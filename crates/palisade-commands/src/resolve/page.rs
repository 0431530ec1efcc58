//! An index's page about a package: which files there are, and on which servers.
//!
//! PEP 691 (JSON) and PEP 503 (HTML). What a page says is used for two things only: which servers the
//! resolve step may reach beside the index, and whether there is a wheel at all.

use std::collections::BTreeSet;

use palisade_egress::{Authority, Target};

/// What a page says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// The servers of the files.
    pub(super) authorities: BTreeSet<Authority>,
    /// Whether any file is a wheel.
    pub(super) wheels: bool,
    /// Whether any file is a source distribution.
    pub(super) sources: bool,
}

/// Most servers that one page may name.
const MAX_SERVERS: usize = 8;

/// What to ask an index for.
pub(super) const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// Reads a page that was fetched from `at`.
pub(super) fn read(at: &Target, content_type: &str, body: &[u8]) -> Page {
    let mut page = Page::default();
    let mut add = |url: &str| {
        let Ok(target) = at.join(url) else { return };
        if page.authorities.len() < MAX_SERVERS {
            page.authorities.insert(target.authority().clone());
        }
        let path = target.path().split('?').next().unwrap_or_default();
        page.wheels |= path.ends_with(".whl");
        page.sources |= path.ends_with(".tar.gz") || path.ends_with(".zip");
    };
    if content_type.contains("json") {
        let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let files = parsed.get("files").and_then(serde_json::Value::as_array);
        for url in files.into_iter().flatten().filter_map(|f| f.get("url")?.as_str()) {
            add(url);
        }
    } else {
        let text = String::from_utf8_lossy(body);
        for rest in text.split("href=").skip(1) {
            let mut chars = rest.chars();
            let Some(quote @ ('"' | '\'')) = chars.next() else { continue };
            if let Some(url) = chars.as_str().split(quote).next() {
                add(&url.replace("&amp;", "&"));
            }
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_page_are_read() {
        let at = Target::parse("https://index.test/simple/x/").unwrap();
        let json = br#"{"files": [{"url": "https://files.test/a/x-1-py3-none-any.whl"}, {"url": "../../x-1.tar.gz"}]}"#;
        let page = read(&at, "application/vnd.pypi.simple.v1+json", json);
        let names: Vec<String> = page.authorities.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["files.test:443", "index.test:443"]);
        assert!(page.wheels && page.sources);
        let html =
            br#"<a href="http://127.0.0.1:1/x-1.zip#sha256=0">x</a> <a href='javascript:1'>"#;
        let page = read(&at, "text/html; charset=utf-8", html);
        assert_eq!(page.authorities, [Authority::parse("127.0.0.1:1").unwrap()].into());
        assert!(!page.wheels && page.sources);
    }
}
