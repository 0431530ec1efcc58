//! Attempts 63 and 74: a person agrees to one thing, and another one happens; or does not see what is
//! asked.

use std::fs;

use serde_json::json;

use super::{Case, Desk, Naive, Verdict, desk};
use crate::{careless, trouble::Result};

/// The tool tells what a path holds.
const READER: &str = "try: reply(open(args['path']).read())\nexcept OSError as e: fail(e.strerror)";

fn reads(texts: &str) -> String {
    format!(
        "capabilities:\n  required:\n    - {{ capability: 'fs.read:{texts}/**', reason: Counts words. }}\n"
    )
}

/// A plugin that was granted the texts, for good. What it asks for is `reads(texts)`.
fn granted(desk: &Desk) -> Result<()> {
    desk.write("plugin/main.py", desk::program(READER))?;
    desk.write("plugin/plugin.yaml", desk::manifest("reader", &reads(&desk.text("texts"))))?;
    desk.write("texts/a", "one")?;
    let grant = format!("fs.read:{}/**", desk.text("texts"));
    let said = desk.run(&call(desk, "plugin", "texts/a", &["--grant", &grant, "--remember"]))?;
    if said.status == Some(0) {
        return Ok(());
    }
    Err(crate::trouble::Trouble(format!("an honest plugin is refused: {}", said.words())))
}

/// `palisade call` for a file.
fn call<'a>(desk: &Desk, plugin: &'a str, file: &str, more: &[&'a str]) -> Vec<&'a str> {
    let arguments = json!({"path": desk.text(file)}).to_string();
    // Lives as long as the process: a handful of short texts.
    let arguments: &'static str = Box::leak(arguments.into_boxed_str());
    [&["call", plugin, "go", arguments, "--json"], more].concat()
}

/// The grant that was remembered must not hold for what stands there now; `file` is what is wanted.
fn wants(desk: &Desk, file: &str) -> Result<Verdict> {
    let said = desk.run(&call(desk, "plugin", file, &[]))?;
    if said.status == Some(0) {
        return Ok(("SUCCEEDED".into(), said.words()));
    }
    Ok(said.judge(desk, "SUCCEEDED"))
}

/// The plugin's files on a desk without Palisade.
fn laid(desk: &Desk, id: &str, rest: &str) -> Result<()> {
    desk.write("plugin/main.py", desk::program(READER))?;
    desk.write("plugin/plugin.yaml", desk::manifest(id, rest))?;
    desk.write("texts/a", "one")
}

/// A host that takes no care: it remembers who was agreed to by `kind` of name. Whether what `change` made of the
/// plugin, or of what it was granted, may read `file` there, which it could not have read before.
fn confused(
    desk: &Desk,
    kind: &str,
    file: &str,
    change: impl FnOnce(&Desk) -> Result<()>,
) -> Result<bool> {
    laid(desk, "reader", &reads(&desk.text("texts")))?;
    if !careless::is_fooled(&desk.root, "agree", &[kind, "plugin"])? {
        return Ok(false);
    }
    change(desk)?;
    careless::is_fooled(&desk.root, "call", &[kind, "plugin", &desk.text(file)])
}

/// The same where only the manifest's rights matter, and what was granted with them.
fn allowed(desk: &Desk, rest: &str, file: &str, grant: Option<&str>) -> Result<bool> {
    laid(desk, "reader", rest)?;
    let (wanted, agreed) = (desk.text(file), ["id", "plugin"]);
    let call: Vec<&str> = agreed.into_iter().chain([wanted.as_str()]).chain(grant).collect();
    Ok(careless::is_fooled(&desk.root, "agree", &agreed)?
        && careless::is_fooled(&desk.root, "call", &call)?)
}

/// The manifest after the consent.
fn changed(desk: &Desk, id: &str, rest: &str) -> Result<Verdict> {
    granted(desk)?;
    desk.write("plugin/plugin.yaml", desk::manifest(id, rest))?;
    wants(desk, "texts/a")
}

/// What the person at the terminal sees of `rest` in a manifest that asks for a folder, and that it is
/// not what would be shown without care.
fn shown(desk: &Desk, rest: &str, bad: &[&str]) -> Result<Verdict> {
    desk.write("plugin/main.py", desk::program(READER))?;
    desk.write("plugin/plugin.yaml", desk::manifest("reader", rest))?;
    let arguments = json!({"path": desk.text("texts/a")}).to_string();
    let said = desk.person(&json!([["Allow?", "n"]]), &["call", "plugin", "go", &arguments])?;
    Ok(clean(&said, bad))
}

/// Nothing of `bad` may be on the screen as it is.
pub(super) fn clean(said: &desk::Said, bad: &[&str]) -> Verdict {
    if let Some(found) = bad.iter().find(|b| said.holds(b.as_bytes())) {
        return ("SUCCEEDED".into(), format!("{found:?} is on the screen; {}", said.words()));
    }
    if said.status.is_none() {
        return ("SUCCEEDED".into(), format!("it hangs; {}", said.words()));
    }
    // The exit status of a manifest that is refused; people are shown where, not the code.
    if said.status == Some(2) {
        return ("blocked:PAL-MANIFEST".into(), said.words());
    }
    ("contained".into(), format!("shown escaped or marked; {}", said.words()))
}

fn asks(reason: &str) -> String {
    format!(
        "capabilities:\n  optional:\n    - {{ capability: 'fs.read:/srv/**', reason: {reason} }}\n"
    )
}

/// A host that prints what it read.
fn printed(desk: &Desk, bad: &str) -> Result<bool> {
    desk.write("reason", bad)?;
    let words = ["cat".to_owned(), desk.text("reason")];
    Ok(desk.on_terminal(&json!([]), &words)?.holds(bad.as_bytes()))
}

macro_rules! screen {
    ($variant:literal, $name:literal, $bad:literal, $rest:expr) => {
        Case {
            number: 74,
            variant: $variant,
            name: $name,
            attack: |d| shown(d, &$rest, &[$bad]),
            control: Naive::Works(|d| printed(d, $bad)),
        }
    };
}

pub(super) const CASES: &[Case] = &[
    Case {
        number: 63,
        variant: "more-rights",
        name: "the manifest asks for more after the consent",
        attack: |d| {
            let outside = d.text("outside");
            granted(d)?;
            d.write("plugin/plugin.yaml", desk::manifest("reader", &reads(&outside)))?;
            wants(d, "outside/secret")
        },
        control: Naive::Works(|d| {
            confused(d, "id", "outside/secret", |d| {
                let more = reads(&d.text("outside"));
                d.write("plugin/plugin.yaml", desk::manifest("reader", &more))
            })
        }),
    },
    Case {
        number: 63,
        variant: "same-rights",
        name: "another manifest that asks for the same",
        attack: |d| {
            let rest = reads(&d.text("texts")).replace("Counts words.", "Sends words away.");
            changed(d, "reader", &rest)
        },
        control: Naive::Works(|d| {
            confused(d, "id", "texts/a", |d| {
                let rest = reads(&d.text("texts")).replace("Counts words.", "Sends words away.");
                d.write("plugin/plugin.yaml", desk::manifest("reader", &rest))
            })
        }),
    },
    Case {
        number: 63,
        variant: "comment",
        name: "a comment more in the manifest",
        attack: |d| {
            let rest = reads(&d.text("texts")) + "# harmless\n";
            changed(d, "reader", &rest)
        },
        control: Naive::Works(|d| {
            confused(d, "id", "texts/a", |d| {
                let rest = reads(&d.text("texts")) + "# harmless\n";
                d.write("plugin/plugin.yaml", desk::manifest("reader", &rest))
            })
        }),
    },
    Case {
        number: 63,
        variant: "same-id",
        name: "another folder with the same id",
        attack: |d| {
            granted(d)?;
            for file in ["main.py", "plugin.yaml"] {
                d.write(&format!("other/{file}"), fs::read(d.path("plugin").join(file))?)?;
            }
            let said = d.run(&call(d, "other", "texts/a", &[]))?;
            Ok(said.judge(d, "SUCCEEDED"))
        },
        control: Naive::Works(|d| {
            confused(d, "id", "texts/a", |d| {
                fs::rename(d.path("plugin"), d.path("first"))?;
                d.write("plugin/main.py", "# another")?;
                d.write("plugin/plugin.yaml", fs::read(d.path("first/plugin.yaml"))?)
            })
        }),
    },
    Case {
        number: 63,
        variant: "folder-moved",
        name: "another plugin in the folder of one that was granted something",
        attack: |d| {
            granted(d)?;
            fs::rename(d.path("plugin"), d.path("moved"))?;
            d.write("plugin/main.py", desk::program(READER))?;
            d.write("plugin/plugin.yaml", desk::manifest("reader", &asks("Mine.")))?;
            wants(d, "texts/a")
        },
        control: Naive::Works(|d| {
            confused(d, "folder", "texts/a", |d| {
                fs::rename(d.path("plugin"), d.path("moved"))?;
                laid(d, "another", &reads(&d.text("texts")))
            })
        }),
    },
    Case {
        number: 63,
        variant: "folder-link",
        name: "a link to another plugin in the place of the folder",
        attack: |d| {
            granted(d)?;
            fs::rename(d.path("plugin"), d.path("moved"))?;
            d.write("evil/main.py", desk::program(READER))?;
            d.write("evil/plugin.yaml", fs::read(d.path("moved/plugin.yaml"))?)?;
            std::os::unix::fs::symlink("evil", d.path("plugin"))?;
            wants(d, "texts/a")
        },
        control: Naive::Works(|d| {
            confused(d, "folder", "texts/a", |d| {
                fs::rename(d.path("plugin"), d.path("moved"))?;
                d.write("evil/plugin.yaml", fs::read(d.path("moved/plugin.yaml"))?)?;
                Ok(std::os::unix::fs::symlink("evil", d.path("plugin"))?)
            })
        }),
    },
    Case {
        number: 63,
        variant: "path-moved",
        name: "the folder that was granted becomes a link to another",
        attack: |d| {
            granted(d)?;
            fs::rename(d.path("texts"), d.path("texts.old"))?;
            std::os::unix::fs::symlink(d.path("outside"), d.path("texts"))?;
            wants(d, "texts/secret")
        },
        control: Naive::Works(|d| {
            std::os::unix::fs::symlink(d.path("outside"), d.path("granted"))?;
            Ok(fs::read(d.path("granted/secret")).is_ok())
        }),
    },
    Case {
        number: 63,
        variant: "swap-at-prompt",
        name: "the manifest is swapped while the person reads the question",
        attack: |d| {
            d.write("plugin/main.py", desk::program(READER))?;
            d.write("plugin/plugin.yaml", desk::manifest("reader", &reads(&d.text("texts"))))?;
            d.write("next.yaml", desk::manifest("reader", &reads(&d.text("outside"))))?;
            let swap = [d.path("next.yaml"), d.path("plugin/plugin.yaml")];
            let answers = json!([["Allow?", "y", swap]]);
            let arguments = json!({"path": d.text("outside/secret")}).to_string();
            let said = d.person(&answers, &["call", "plugin", "go", &arguments])?;
            if d.path("next.yaml").exists() {
                return Ok(("impossible:nobody was asked".into(), said.words()));
            }
            let first = said.judge(d, "SUCCEEDED");
            if first.0 == "SUCCEEDED" {
                return Ok(first);
            }
            // Nor does the answer hold for the new one.
            wants(d, "outside/secret")
        },
        control: Naive::Works(|d| {
            // It reads the manifest for the question, and once more for the start.
            confused(d, "folder", "outside/secret", |d| {
                d.write("next.yaml", desk::manifest("reader", &reads(&d.text("outside"))))?;
                Ok(fs::rename(d.path("next.yaml"), d.path("plugin/plugin.yaml"))?)
            })
        }),
    },
    Case {
        number: 63,
        variant: "look-alike-id",
        name: "an id with a letter of another alphabet",
        attack: |d| {
            granted(d)?;
            d.write("plugin/plugin.yaml", desk::manifest("r\u{435}ader", &asks("Mine.")))?;
            wants(d, "texts/a")
        },
        control: Naive::Works(|d| printed(d, "r\u{435}ader")),
    },
    Case {
        number: 63,
        variant: "id-case",
        name: "an id in capitals",
        attack: |d| {
            granted(d)?;
            d.write("plugin/plugin.yaml", desk::manifest("Reader", &reads(&d.text("texts"))))?;
            wants(d, "texts/a")
        },
        control: Naive::Works(|d| {
            // It keeps what it remembers in files, where capitals are the same.
            confused(d, "file name of the id", "texts/a", |d| {
                laid(d, "Reader", &reads(&d.text("texts")))
            })
        }),
    },
    Case {
        number: 63,
        variant: "wildcard-all",
        name: "a wildcard for every capability",
        attack: |d| {
            changed(
                d,
                "reader",
                "capabilities: { optional: [{ capability: '*', reason: All. }] }\n",
            )
        },
        control: Naive::Works(|d| {
            let all = "capabilities: { optional: [{ capability: '*', reason: All. }] }\n";
            allowed(d, all, "outside/secret", None)
        }),
    },
    Case {
        number: 63,
        variant: "wildcard-env",
        name: "every variable of the environment",
        attack: |d| {
            changed(
                d,
                "reader",
                "capabilities: { optional: [{ capability: 'env:*', reason: All. }] }\n",
            )
        },
        control: Naive::Works(|d| {
            let said = d.python(
                "import fnmatch, os\nprint([n for n in os.environ if fnmatch.fnmatchcase('env:' + n, 'env:*')])",
                &[],
            )?;
            Ok(said.holds(b"PALISADE_STATE_DIR"))
        }),
    },
    Case {
        number: 63,
        variant: "wildcard-machine",
        name: "all files of the machine, granted with the rest",
        attack: |d| {
            d.write("plugin/main.py", desk::program(READER))?;
            let rest = asks("All.").replace("/srv/**", "/**");
            d.write("plugin/plugin.yaml", desk::manifest("reader", &rest))?;
            let said = d.run(&call(d, "plugin", "outside/secret", &["--grant-all"]))?;
            Ok(said.judge(d, "SUCCEEDED"))
        },
        control: Naive::Works(|d| {
            allowed(d, &asks("All.").replace("/srv/**", "/**"), "outside/secret", None)
        }),
    },
    Case {
        number: 63,
        variant: "grant-wider",
        name: "a grant that is wider than what is asked for gives only what is asked for",
        attack: |d| {
            d.write("plugin/main.py", desk::program(READER))?;
            d.write("plugin/plugin.yaml", desk::manifest("reader", &reads(&d.text("texts"))))?;
            let grant = format!("fs.read:{}/**", d.root.display());
            let said = d.run(&call(d, "plugin", "outside/secret", &["--grant", &grant]))?;
            Ok(said.judge(d, "SUCCEEDED"))
        },
        control: Naive::Works(|d| {
            let wider = format!("fs.read:{}/**", d.root.display());
            allowed(d, &reads(&d.text("texts")), "outside/secret", Some(&wider))
        }),
    },
    screen!(
        "ansi-name",
        "an escape sequence in the name",
        "\u{1b}[2J",
        asks("Ok.") + "name: \"Nice\\e[2J\"\n"
    ),
    screen!(
        "ansi-reason",
        "an escape sequence in the reason",
        "\u{1b}[8m",
        asks("\"Counts\\e[8m words.\"")
    ),
    screen!(
        "osc-description",
        "an operating system command in the description",
        "\u{1b}]0;",
        asks("Ok.") + "description: \"\\e]0;safe\\a\"\n"
    ),
    screen!(
        "c1-name",
        "an 8-bit control sequence in the name",
        "\u{9b}2J",
        asks("Ok.") + "name: \"Nice\u{9b}2J\"\n"
    ),
    screen!(
        "newline-reason",
        "a reason with a line of its own",
        "\nrisk: none",
        asks("\"Ok.\\nrisk: none\"")
    ),
    screen!(
        "return-name",
        "a carriage return that writes over the line",
        "\rTrusted",
        asks("Ok.") + "name: \"Evil\\rTrusted\"\n"
    ),
    screen!(
        "bidi-name",
        "text that runs backwards in the name",
        "\u{202e}",
        asks("Ok.") + "name: \"Nice \u{202e}elbatsurt\"\n"
    ),
    screen!(
        "bidi-reason",
        "an isolate in the reason",
        "\u{2067}",
        asks("\"Counts \u{2067}sdrow\"")
    ),
    screen!(
        "zero-width",
        "letters without width in the name",
        "Pay\u{200b}pal",
        asks("Ok.") + "name: \"Pay\u{200b}pal\"\n"
    ),
    screen!(
        "bidi-path",
        "text that runs backwards in a path",
        "\u{202e}",
        asks("Ok.").replace("/srv/", "/srv/\u{202e}txt/")
    ),
    screen!(
        "tags",
        "invisible tag letters in the description",
        "\u{e0041}",
        asks("Ok.") + "description: \"Nice\u{e0041}\"\n"
    ),
    Case {
        number: 74,
        variant: "newline-description",
        name: "a description that plays the prompt in lines of its own",
        attack: |d| {
            let rest = asks("Ok.")
                + "description: |\n  Nice.\n\n  It asks for nothing more.\n  Allow? yes\n";
            shown(
                d,
                &rest,
                &[
                    "\nIt asks for nothing more",
                    "\n  It asks for nothing more",
                    "\nAllow? yes",
                    "\n  Allow? yes",
                ],
            )
        },
        control: Naive::Works(|d| printed(d, "\n  It asks for nothing more.")),
    },
    Case {
        number: 74,
        variant: "look-alike-name",
        name: "letters of another alphabet in the name: shown with a mark",
        attack: |d| {
            d.write("plugin/main.py", desk::program(READER))?;
            let rest = asks("Ok.") + "name: p\u{430}ypal\n";
            d.write("plugin/plugin.yaml", desk::manifest("reader", &rest))?;
            let said = d.person(&json!([["Allow?", "n"]]), &["call", "plugin", "go", "{}"])?;
            let text = said.text();
            let line = text.lines().find(|l| l.contains("(reader")).unwrap_or_default();
            if line.contains("alphabet") || !line.contains('\u{430}') {
                return Ok(("contained".into(), format!("shown as {line:?}")));
            }
            Ok(("SUCCEEDED".into(), format!("nothing marks it: {line:?}")))
        },
        control: Naive::Works(|d| printed(d, "p\u{430}ypal")),
    },
    Case {
        number: 74,
        variant: "long-name",
        name: "a name that pushes the question off the screen",
        attack: |d| text_of_length(d, "name", 10_000),
        control: Naive::Works(|d| printed(d, &"x".repeat(10_000))),
    },
    Case {
        number: 74,
        variant: "long-reason",
        name: "a reason that pushes the question off the screen",
        attack: |d| {
            d.write("plugin/main.py", desk::program(READER))?;
            let rest = asks(&format!("\"{}\"", "x ".repeat(5000)));
            d.write("plugin/plugin.yaml", desk::manifest("reader", &rest))?;
            Ok(d.run(&["check", "plugin", "--json"])?.judge(d, "SUCCEEDED"))
        },
        control: Naive::Works(|d| printed(d, &"x".repeat(10_000))),
    },
    Case {
        number: 74,
        variant: "many",
        name: "a thousand rights, so that nobody reads them",
        attack: |d| {
            d.write("plugin/main.py", desk::program(READER))?;
            let mut rest = "capabilities:\n  optional:\n".to_owned();
            for i in 0..1000 {
                rest.push_str(&format!(
                    "    - {{ capability: 'fs.read:/srv/{i}/**', reason: Ok. }}\n"
                ));
            }
            d.write("plugin/plugin.yaml", desk::manifest("reader", &rest))?;
            Ok(d.run(&["check", "plugin", "--json"])?.judge(d, "SUCCEEDED"))
        },
        control: Naive::Works(|d| {
            // More lines than any screen has.
            let rights: String = (0..1000).map(|i| format!("fs.read:/srv/{i}/**\n")).collect();
            d.write("rights", rights)?;
            let said = d.on_terminal(&json!([]), &["cat".to_owned(), d.text("rights")])?;
            Ok(said.text().lines().count() >= 1000)
        }),
    },
];

fn text_of_length(desk: &Desk, key: &str, length: usize) -> Result<Verdict> {
    desk.write("plugin/main.py", desk::program(READER))?;
    let rest = asks("Ok.") + &format!("{key}: \"{}\"\n", "x ".repeat(length / 2));
    desk.write("plugin/plugin.yaml", desk::manifest("reader", &rest))?;
    Ok(desk.run(&["check", "plugin", "--json"])?.judge(desk, "SUCCEEDED"))
}
