//! Writing the digest of a plugin's files into a manifest that its author keeps by hand.

use crate::{Digest, Syntax, parse};

/// The text of a manifest with `content` set to this digest and nothing else changed: the digest that is
/// there is replaced; where there is none, a line is added below `api` (in JSON and YAML's flow form, at
/// the beginning of the map).
///
/// `None` where the text is not a valid manifest, or is written so that the place cannot be found. The
/// author then adds the key.
///
/// ```
/// use palisade_manifest::{Digest, Syntax, with_content};
/// let text = "api: palisade/1\nid: a\nversion: 1.0.0\nentry: { kind: wasm, file: a.wasm }\n";
/// let sealed = with_content(text, Syntax::Yaml, Digest::of(b"")).unwrap();
/// assert!(sealed.starts_with("api: palisade/1\ncontent: sha256:e3b0c442"));
/// ```
#[must_use]
pub fn with_content(text: &str, syntax: Syntax, content: Digest) -> Option<String> {
    let mut wanted = parse(text, syntax).ok()?;
    let old = wanted.content.replace(content);
    let new = match old {
        Some(old) if old == content => return Some(text.to_owned()),
        Some(old) => replaced(text, &old.to_string(), &content.to_string())?,
        None => added(text, syntax, content)?,
    };
    // Text is not syntax: what was written must be read as what was meant.
    parse(&new, syntax).ok().filter(|read| read.says_the_same_as(&wanted)).map(|_| new)
}

/// Replaces what stands there exactly once.
fn replaced(text: &str, old: &str, new: &str) -> Option<String> {
    let (before, after) = text.split_once(old)?;
    (!after.contains(old)).then(|| format!("{before}{new}{after}"))
}

fn added(text: &str, syntax: Syntax, content: Digest) -> Option<String> {
    let blank = |c: char| c.is_whitespace() || c == '\u{feff}';
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    if syntax != Syntax::Toml && text.trim_start_matches(blank).starts_with('{') {
        let (before, after) = text.split_once('{')?;
        let indent: String = after
            .trim_start_matches(['\r', '\n'])
            .chars()
            .take_while(|c| matches!(c, ' ' | '\t'))
            .collect();
        let gap =
            if after.starts_with(['\r', '\n']) { format!("{end}{indent}") } else { " ".into() };
        return Some(format!("{before}{{{gap}\"content\": \"{content}\",{after}"));
    }
    let line = match syntax {
        Syntax::Toml => format!("content = \"{content}\"{end}"),
        _ => format!("content: {content}{end}"),
    };
    let mut out = String::with_capacity(text.len() + line.len());
    let mut is_in = false;
    for one in text.split_inclusive('\n') {
        out.push_str(one);
        if !is_in && is_api(one.trim_start_matches('\u{feff}')) {
            if !one.ends_with('\n') {
                out.push_str(end);
            }
            out.push_str(&line);
            is_in = true;
        }
    }
    is_in.then_some(out)
}

/// Whether a line begins with the key `api`.
fn is_api(line: &str) -> bool {
    let key = ["api", "\"api\"", "'api'"].into_iter().find_map(|key| line.strip_prefix(key));
    key.is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with([':', '=']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "# mine\r\napi: palisade/1 # the form\r\nid: a\r\nversion: 1.0.0\r\nentry:\r\n  kind: wasm\r\n  file: a.wasm\r\n";
    const TOML: &str =
        "id = 'a'\napi = 'palisade/1'\nversion = '1.0.0'\n[entry]\nkind = 'wasm'\nfile = 'a.wasm'";
    const JSON: &str = "{\n  \"entry\": { \"kind\": \"wasm\", \"file\": \"a.wasm\" },\n  \"id\": \"a\",\n  \"version\": \"1.0.0\",\n  \"api\": \"palisade/1\"\n}";
    const FLOW: &str =
        "\u{feff}{ api: palisade/1, id: a, version: 1.0.0, entry: { kind: wasm, file: a.wasm } }\n";

    #[test]
    fn one_line_is_added_and_afterwards_only_the_digest_changes() {
        let digests = [Digest::of(b"1"), Digest::of(b"2")];
        for (text, syntax) in [
            (YAML, Syntax::Yaml),
            (TOML, Syntax::Toml),
            (JSON, Syntax::Json),
            (JSON, Syntax::Yaml),
            (FLOW, Syntax::Yaml),
        ] {
            let [first, second] = digests.map(|d| with_content(text, syntax, d).unwrap());
            assert_eq!(parse(&first, syntax).unwrap().content, Some(digests[0]), "{first}");
            assert_eq!(with_content(&first, syntax, digests[1]).unwrap(), second);
            assert_eq!(with_content(&first, syntax, digests[0]).unwrap(), first);
            let added = first.len() - text.len();
            assert!((81..=96).contains(&added), "{added}: {first}");
        }
        let crlf = with_content(YAML, Syntax::Yaml, digests[0]).unwrap();
        assert_eq!(crlf.matches("\r\n").count(), crlf.matches('\n').count());
    }

    #[test]
    fn a_place_that_cannot_be_found_is_left_to_the_author() {
        let digest = Digest::of(b"1");
        let unusual = "\"\\u0061pi\": palisade/1\nid: a\nversion: 1.0.0\nentry: { kind: wasm, file: a.wasm }\n";
        assert!(parse(unusual, Syntax::Yaml).is_ok());
        assert_eq!(with_content(unusual, Syntax::Yaml, digest), None);
        // The digest stands twice: which of them is the key's is not guessed.
        let twice = format!("{YAML}content: {digest}\r\ndescription: {digest}\r\n");
        assert!(parse(&twice, Syntax::Yaml).is_ok());
        assert_eq!(with_content(&twice, Syntax::Yaml, Digest::of(b"2")), None);
        assert_eq!(with_content("not a manifest", Syntax::Yaml, digest), None);
    }

    #[test]
    fn a_digest_is_read_in_its_one_form() {
        let with = |content: &str| parse(&format!("{YAML}content: {content}\r\n"), Syntax::Yaml);
        assert!(with(&Digest::of(b"").to_string()).unwrap().content.is_some());
        for wrong in ["abc", "sha256:", "5", &Digest::of(b"").to_string().to_uppercase()] {
            let error = with(wrong).unwrap_err().to_string();
            assert!(error.contains("content"), "{error}");
        }
    }
}
