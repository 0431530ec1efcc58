//! What changes, for people: a diff without the secrets that are in the file.

use palisade_model::text::escape;
use similar::{ChangeTag, TextDiff};

use super::{
    jsonc::{self, Edit, Node},
    looks,
};
use crate::terminal::Paint;

/// What stands for a secret.
const MASK: &str = "<secret>";
/// Shortest piece of text outside of values that is looked at.
const MIN_TOKEN: usize = 12;

/// The text with everything that looks like a secret made unreadable: values by their name and their
/// look, and what stands in comments by its look.
fn masked(text: &str, root: &Node) -> String {
    let mut edits = Vec::new();
    root.each(&mut |key, node| {
        edits.extend(option_values(node).map(|value| Edit::replace(value, format!("\"{MASK}\""))));
        let Some(value) = node.text() else { return };
        let by_name = key.is_some_and(looks::secret_name);
        if !value.is_empty() && !looks::is_reference(value) && (by_name || hides(value)) {
            edits.push(Edit::replace(node, format!("\"{MASK}\"")));
        }
    });
    edits.sort_by_key(|edit| edit.span.start);
    edits.dedup_by_key(|edit| edit.span.start);
    let text = jsonc::apply(text, edits);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    let in_token = |c: char| c.is_ascii_alphanumeric() || "-_=+/.:@".contains(c);
    while let Some(start) = rest.find(in_token) {
        let (before, from) = rest.split_at(start);
        let (token, after) = from.split_at(from.find(|c| !in_token(c)).unwrap_or(from.len()));
        out.push_str(before);
        out.push_str(if token.len() >= MIN_TOKEN && looks::secret_value(token) {
            MASK
        } else {
            token
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The elements of an array that stand behind an option for a secret (`--api-key`, VALUE).
fn option_values(array: &Node) -> impl Iterator<Item = &Node> {
    let items = array.items().unwrap_or_default();
    items.iter().zip(items.iter().skip(1)).filter_map(|(option, value)| {
        let option = option.node.text()?;
        let value = &value.node;
        (is_option(option) && !value.text()?.starts_with('-')).then_some(value)
    })
}

/// Whether an argument is an option behind which a secret stands. Palisade's own `--secret` has only names.
pub(crate) fn is_option(argument: &str) -> bool {
    argument.starts_with("--")
        && argument != "--secret"
        && !argument.contains('=')
        && looks::secret_name(argument)
}

/// Whether a value, or what stands behind the `=` of an option, looks like a secret.
pub(crate) fn hides(value: &str) -> bool {
    looks::secret_value(value)
        || value.split_once('=').is_some_and(|(name, value)| {
            looks::secret_value(value)
                || (name.starts_with('-') && looks::secret_name(name) && !value.is_empty())
        })
}

/// The lines that change, with three around them. `old` and `new` are texts and what was read in them.
pub(crate) fn diff(old: (&str, &Node), new: (&str, &Node), paint: Paint) -> String {
    let (old, new) = (masked(old.0, old.1), masked(new.0, new.1));
    let diff = TextDiff::from_lines(&old, &new);
    let mut out = String::new();
    for (index, group) in diff.grouped_ops(3).iter().enumerate() {
        if index > 0 {
            out.push_str("  …\n");
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let line = change.value().trim_end_matches(['\n', '\r']).replace('\t', "  ");
            let line = escape(&line, 2000);
            let line = match change.tag() {
                ChangeTag::Delete => paint.bad(format!("- {line}")),
                ChangeTag::Insert => paint.good(format!("+ {line}")),
                ChangeTag::Equal => format!("  {line}"),
            };
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_shows_what_changes_and_no_secret() {
        let old = "{\n  // was ghp_0123456789abcdefghij\n  \"API_KEY\": \"hunter2\",\n  \"u\": \"--token=hunter2\",\n  \"v\": [\"--api-key\", \"hunter2\", \"sk-hunter2hunter2\"],\n  \"w\": \"${KEY}\",\n  \"a\": 1\n}";
        let new = old.replace("\"a\": 1", "\"a\": \"\u{1b}[31m\"");
        let shown = diff(
            (old, &jsonc::parse(old).unwrap()),
            (&new, &jsonc::parse(&new.replace('\u{1b}', "x")).unwrap()),
            Paint::NONE,
        );
        assert!(!shown.contains("hunter2") && !shown.contains("ghp_"), "{shown}");
        assert!(shown.contains("-   \"a\": 1\n+   \"a\": \"\\u{1b}[31m\"\n"), "{shown}");
    }
}
