//! The option that would grant something, ready to be pasted into a shell.
//!
//! Targets come from plugins. An option is offered only if it grants exactly the one thing that was
//! asked, and is quoted so that pasting it can do nothing else.

use palisade_model::{Access, Capability, text::is_deceptive};

/// Longest option offered, in bytes; longer ones would be cut by whoever reads them.
const MAX_OPTION: usize = 1024;

/// `--grant kind:scope` for `capability`, quoted for a POSIX shell. `None` where the text has characters
/// that cannot be shown as they are, or is longer than a kilobyte.
#[must_use]
pub fn grant_option(capability: &Capability) -> Option<String> {
    let text = capability.to_string();
    if text.len() > MAX_OPTION || text.chars().any(is_deceptive) {
        return None;
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@+,=%".contains(&b);
    Some(if text.bytes().all(plain) {
        format!("--grant {text}")
    } else {
        format!("--grant '{}'", text.replace('\'', r"'\''"))
    })
}

/// The capability that covers `access` and nothing else, if one can be written. A path that contains `*`
/// has none: written as a scope it would mean more.
pub(crate) fn exactly(access: &Access<'_>) -> Option<Capability> {
    let target = access.canonical_target()?;
    if target.contains('*') {
        return None;
    }
    let capability = Capability::new(access.kind, &target).ok()?;
    capability.covers(access).then_some(capability)
}
