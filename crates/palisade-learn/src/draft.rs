//! Writing the draft of a manifest: what was used is asked for, what was refused stands beside it as a
//! comment, and every reason is still to be written.

use palisade_model::{Capability, Kind, text::escape};
use serde_json::{Value, json};

use crate::yaml;

/// How a reason begins that nobody has written yet.
pub const TODO: &str = "TODO by the author: ";

/// Most candidates in a draft. What comes after them is counted.
const MAX_CANDIDATES: usize = 60;

/// Whether a reason is still that of a draft.
#[must_use]
pub fn is_todo(reason: &str) -> bool {
    reason.starts_with(TODO.trim_end())
}

/// A right that was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drafted {
    /// The right.
    pub capability: Capability,
    /// What was seen, in one line; may hold the program's own text.
    pub seen: String,
}

/// A right that would have been needed, or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The right.
    pub capability: Capability,
    /// Why it is not drafted, in one line; may hold the program's own text.
    pub why: String,
}

/// A manifest that is not finished.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The manifest as JSON, without `capabilities`.
    pub base: Value,
    /// What it asks for.
    pub rights: Vec<Drafted>,
    /// What it may have to ask for.
    pub candidates: Vec<Candidate>,
    /// What else there is to say, a line each.
    pub notes: Vec<String>,
}

/// The order of a manifest's parts.
const ORDER: [&str; 9] =
    ["api", "id", "name", "version", "description", "authors", "license", "homepage", "requires"];

impl Draft {
    /// The draft as YAML that `palisade_manifest::parse` reads.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut out = String::from(
            "# A draft by `palisade learn`: it asks for what was seen in use, and for nothing else.\n\
             # Every reason that begins with TODO is the author's to write: people are asked by it.\n",
        );
        for note in &self.notes {
            out.push_str(&comment("", note));
        }
        out.push('\n');
        let empty = serde_json::Map::new();
        let base = self.base.as_object().unwrap_or(&empty);
        let put = |key: &str, out: &mut String| {
            if let Some(value) = base.get(key) {
                yaml::entry(key, value, 0, out);
            }
        };
        ORDER.iter().for_each(|key| put(key, &mut out));
        put("entry", &mut out);
        self.capabilities(&mut out);
        for key in base.keys() {
            if !ORDER.contains(&key.as_str()) && !["entry", "capabilities"].contains(&key.as_str())
            {
                put(key, &mut out);
            }
        }
        out
    }

    fn capabilities(&self, out: &mut String) {
        if self.rights.is_empty() && self.candidates.is_empty() {
            out.push_str("# It used nothing that takes a right.\n");
            return;
        }
        if self.rights.is_empty() {
            out.push_str("# It used nothing that takes a right.\ncapabilities: { required: [] }\n");
        } else {
            out.push_str("capabilities:\n  required:\n");
        }
        for right in &self.rights {
            out.push_str(&comment("    ", &right.seen));
            for (n, line) in lines(&right.capability).iter().enumerate() {
                out.push_str(&format!("    {}{line}\n", if n == 0 { "- " } else { "  " }));
            }
        }
        if !self.candidates.is_empty() {
            out.push_str(
                "    # Tried and refused, or not seen in use. Take what it really needs.\n",
            );
        }
        for candidate in self.candidates.iter().take(MAX_CANDIDATES) {
            out.push_str(&comment("    ", &format!("  {}:", candidate.why)));
            for (n, line) in lines(&candidate.capability).iter().enumerate() {
                out.push_str(&format!("    # {}{line}\n", if n == 0 { "- " } else { "  " }));
            }
        }
        if let Some(more) = self.candidates.len().checked_sub(MAX_CANDIDATES).filter(|n| *n > 0) {
            out.push_str(&format!("    # … and {more} more.\n"));
        }
    }
}

fn comment(pad: &str, text: &str) -> String {
    format!("{pad}# {}\n", escape(text, 600))
}

/// The lines of one entry. Capabilities hold no control characters, and JSON's text is YAML's.
fn lines(capability: &Capability) -> [String; 2] {
    let reason = format!("{TODO}{}", question(capability.kind()));
    [
        format!("capability: {}", yaml::scalar(&json!(capability.to_string()))),
        format!("reason: {}", yaml::scalar(&json!(reason))),
    ]
}

fn question(kind: Kind) -> &'static str {
    match kind {
        Kind::FsRead => "why it reads this",
        Kind::FsWrite => "why it writes here",
        Kind::NetHttp | Kind::NetTcp => "why it speaks with this host",
        Kind::Exec => "why it runs this program",
        Kind::Env => "why it needs this variable",
        Kind::Secret => "why it needs this secret",
        Kind::Device => "why it needs this device",
        _ => "what it needs this for",
    }
}

#[cfg(test)]
mod tests {
    use palisade_manifest::{Syntax, parse};

    use super::*;

    fn draft() -> Draft {
        Draft {
            base: json!({
                "api": "palisade/1", "id": "x", "version": "1.0.0",
                "entry": {"kind": "python", "file": "main.py", "args": ["--a: b", "#c"]},
                "contributes": {"tools": [{"name": "t", "description": "Two\nlines: # x",
                    "input": {"type": "object", "properties": {"yes": {"enum": [1, "no"]}}}}]},
                "resources": {"memory": "64MiB"},
            }),
            rights: vec![Drafted {
                capability: "fs.read:/srv/a: #b \"c\"".parse().unwrap(),
                seen: "openat\u{1b}[2J\nx".into(),
            }],
            candidates: vec![Candidate {
                capability: "exec:/usr/bin/git".parse().unwrap(),
                why: "not there inside\n- evil".into(),
            }],
            notes: vec!["a note\nwith: a break".into()],
        }
    }

    #[test]
    fn a_draft_is_a_manifest_that_asks_for_what_was_used() {
        let text = draft().to_yaml();
        let manifest = parse(&text, Syntax::Yaml).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let requested = manifest.requested();
        assert_eq!(requested.required.len(), 1, "{text}");
        let right = requested.required.iter().next().unwrap();
        assert_eq!(right.to_string(), "fs.read:/srv/a: #b \"c\"");
        assert!(is_todo(&requested.reasons[right]), "{text}");
        assert_eq!(manifest.contributes.tools[0].description, "Two\nlines: # x");
        assert!(text.contains("# - capability: \"exec:/usr/bin/git\""), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.lines().all(|l| !l.trim_start().starts_with("- evil")), "{text}");
    }

    #[test]
    fn candidates_taken_as_they_stand_make_a_manifest_too() {
        let text = draft().to_yaml();
        let taken: String = text
            .lines()
            .map(|l| {
                let l = l
                    .strip_prefix("    # ")
                    .filter(|r| r.starts_with("- cap") || r.starts_with("  reason"))
                    .map_or_else(|| l.to_owned(), |r| format!("    {r}"));
                l + "\n"
            })
            .collect();
        let manifest = parse(&taken, Syntax::Yaml).unwrap_or_else(|e| panic!("{e}\n{taken}"));
        assert_eq!(manifest.requested().required.len(), 2, "{taken}");
    }

    #[test]
    fn without_rights_it_is_a_manifest_all_the_same() {
        for candidates in [Vec::new(), draft().candidates] {
            let text = Draft { rights: Vec::new(), candidates, ..draft() }.to_yaml();
            let manifest = parse(&text, Syntax::Yaml).unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert!(manifest.requested().required.is_empty());
        }
    }
}
