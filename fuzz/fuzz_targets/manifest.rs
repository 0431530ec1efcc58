//! Any bytes as a manifest in each of the three syntaxes.
//!
//! Nothing panics, an error text steers no terminal, and what was read is written and read back as the
//! same manifest. A manifest that is sealed says the same but for the digest of its files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_manifest::{Digest, Syntax, parse, parse_named, with_content};
use palisade_model::{Failure, text::is_deceptive};

fuzz_target!(|bytes: &[u8]| {
    for (syntax, name) in [
        (Syntax::Yaml, "plugin.yaml"),
        (Syntax::Toml, "plugin.toml"),
        (Syntax::Json, "plugin.json"),
    ] {
        match parse_named(bytes, syntax, name) {
            Ok(manifest) => {
                let written = manifest.to_json();
                let again = parse(&written.to_string(), Syntax::Json)
                    .unwrap_or_else(|error| panic!("{error}\n{written:#}"));
                assert!(manifest.says_the_same_as(&again), "{written:#}");
                let name = manifest.display_name();
                assert!(!name.chars().any(is_deceptive), "{name:?}");
                let _ = manifest.effective_config(&written);
                let _ =
                    (manifest.requested(), manifest.declared_registrations(), manifest.limits());
                let (text, digest) = (String::from_utf8_lossy(bytes), Digest::of(bytes));
                if let Some(sealed) = with_content(&text, syntax, digest) {
                    let mut sealed = parse(&sealed, syntax).unwrap_or_else(|e| panic!("{e}"));
                    assert_eq!(sealed.content, Some(digest));
                    sealed.content = manifest.content;
                    assert!(manifest.says_the_same_as(&sealed));
                }
                for tool in &manifest.contributes.tools {
                    let _ = tool.input.validate(&written);
                }
            }
            Err(error) => {
                let text = error.to_string();
                assert!(!text.lines().any(|line| line.chars().any(is_deceptive)), "{text:?}");
                let text = Failure::from(error).to_string();
                assert!(!text.chars().any(is_deceptive), "{text:?}");
            }
        }
    }
});
