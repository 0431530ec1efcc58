//! What a plugin's way to talk cannot carry: refused when it is loaded, so that nobody waits for a hook
//! that can never be answered.

use palisade_manifest::{Entry, Manifest};
use palisade_model::{Kind, text::escape};

use crate::error::HostError;

/// Refuses a manifest that declares what its entry's dialect has no message for.
pub(crate) fn check(manifest: &Manifest) -> Result<(), HostError> {
    let (dialect, events) = match &manifest.entry {
        Entry::Jsonl(_) => ("jsonl", true),
        Entry::Mcp { .. } => ("mcp", false),
        Entry::Extism { .. } => ("extism", false),
        _ => return Ok(()),
    };
    let contributes = &manifest.contributes;
    let subscribed = manifest.requested();
    let found = if let Some(hook) = contributes.hooks.first() {
        Some(("hooks", "contributes.hooks", hook.event.clone()))
    } else if let Some(command) = contributes.commands.first() {
        Some(("commands", "contributes.commands", command.name.clone()))
    } else {
        let mut asked = subscribed.required.iter().chain(subscribed.optional.iter());
        asked
            .find(|c| !events && c.kind() == Kind::EventSubscribe)
            .map(|c| ("events", "capabilities", c.to_string()))
    };
    match found {
        None => Ok(()),
        Some((what, place, name)) => Err(HostError::Unsupported {
            id: manifest.id.clone(),
            dialect,
            what,
            place,
            name: escape(&name, 128),
        }),
    }
}

#[cfg(test)]
mod tests {
    use palisade_manifest::{Syntax, parse};

    use super::*;

    fn manifest(entry: &str, more: &str) -> Manifest {
        let text = format!("api: palisade/1\nid: a\nversion: 1.0.0\nentry: {{ {entry} }}\n{more}");
        parse(&text, Syntax::Yaml).unwrap()
    }

    #[test]
    fn what_a_dialect_cannot_carry_is_refused_by_name() {
        let (jsonl, mcp) = ("kind: jsonl, command: x", "kind: mcp, command: x");
        let extism = "kind: extism, file: x.wasm";
        let native = "kind: exec, command: x";
        let hooks = "contributes: { hooks: [{ event: message.received }] }";
        let commands = "contributes: { commands: [{ name: greet, description: Greets. }] }";
        let events = "capabilities: { optional: ['event.subscribe:mail.>'] }";
        for (entry, more, name) in [
            (jsonl, hooks, Some("message.received")),
            (jsonl, commands, Some("greet")),
            (jsonl, events, None),
            (mcp, hooks, Some("message.received")),
            (mcp, commands, Some("greet")),
            (mcp, events, Some("event.subscribe:mail.>")),
            (extism, hooks, Some("message.received")),
            (extism, commands, Some("greet")),
            (extism, events, Some("event.subscribe:mail.>")),
            (native, hooks, None),
            (native, commands, None),
            (native, events, None),
        ] {
            let refused = check(&manifest(entry, more)).err().map(|e| e.to_string());
            match name {
                None => assert_eq!(refused, None, "{entry} {more}"),
                Some(name) => {
                    let text = refused.unwrap_or_default();
                    assert!(text.contains(name), "{entry} {more}: {text}");
                }
            }
        }
    }
}
