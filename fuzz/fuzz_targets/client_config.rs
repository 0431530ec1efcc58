//! Configurations of MCP clients as `palisade mcp wrap` reads and changes them: nothing panics, what is
//! changed can be read again and means the same, and undoing it gives the text back byte for byte.
#![no_main]
#![allow(dead_code)] // Of the command's modules only a part is used here.

#[path = "../../crates/palisade-cli/src/commands/wrap/jsonc.rs"]
mod jsonc;
#[path = "../../crates/palisade-cli/src/commands/wrap/servers.rs"]
mod servers;

use jsonc::{Edit, Node};
use libfuzzer_sys::fuzz_target;
use servers::{Launch, Server, Shape, Wrapped};

const OPTIONS: [&str; 4] = ["mcp", "--secret", "KEY=s.KEY", "--"];

fn moved(name: &str) -> bool {
    name == "KEY"
}

/// The servers that would be put behind Palisade.
fn plain<'s, 't>(found: &'s [Server<'t>]) -> impl Iterator<Item = (&'s Server<'t>, &'s Launch<'t>)> {
    found.iter().filter_map(|server| match &server.shape {
        Shape::Stdio(launch) if !launch.is_palisade() => Some((server, launch)),
        _ => None,
    })
}

/// Those that are behind it, and that this target put there.
fn wrapped<'s, 't>(
    found: &'s [Server<'t>],
) -> impl Iterator<Item = (&'s Server<'t>, &'s Launch<'t>, Wrapped<'t>)> {
    found.iter().filter_map(|server| match &server.shape {
        Shape::Stdio(launch) if launch.command == "/bin/palisade" => {
            launch.wrapped().filter(|w| w.options == OPTIONS).map(|w| (server, launch, w))
        }
        _ => None,
    })
}

fn read(text: &str) -> Node {
    jsonc::parse(text).expect("what was changed can be read")
}

fuzz_target!(|text: &str| {
    let Ok(root) = jsonc::parse(text) else { return };
    assert!(text.get(root.span.clone()).is_some());
    let Ok(found) = servers::servers(&root) else { return };
    if wrapped(&found).next().is_some() {
        return;
    }
    let edits = plain(&found).flat_map(|(_, l)| l.wrap(text, "/bin/palisade", &OPTIONS, moved));
    let changed = jsonc::apply(text, edits.collect());
    let new_root = read(&changed);
    let new = servers::servers(&new_root).expect("the servers are found again");
    assert_eq!(new.len(), found.len());
    assert_eq!(wrapped(&new).count(), plain(&found).count());
    for ((_, now, _), (_, old)) in wrapped(&new).zip(plain(&found)) {
        assert_eq!(now.arguments[OPTIONS.len()], old.command);
        assert_eq!(now.arguments[OPTIONS.len() + 1..], old.arguments);
    }

    // With the old text at hand it comes back as it was.
    let back = wrapped(&new).map(|(server, _, _)| {
        let (before, _) = servers::original(&changed, server, text, &found).expect("it is found");
        Edit::replace(server.node, &text[before.node.span.clone()])
    });
    assert_eq!(jsonc::apply(&changed, back.collect()), text);

    // Without it, it means the same.
    let back = wrapped(&new).flat_map(|(_, launch, w)| launch.unwrap(&changed, &w, &[("KEY", "k")]));
    let back = jsonc::apply(&changed, back.collect());
    let back_root = read(&back);
    let again = servers::servers(&back_root).expect("the servers are found again");
    for ((_, now), (_, old)) in plain(&again).zip(plain(&found)) {
        assert_eq!((now.command, &now.arguments), (old.command, &old.arguments));
    }
});
