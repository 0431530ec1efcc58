use super::*;

fn asked(capability: &str, required: bool, reason: Option<&str>) -> Asked {
    let capability: Capability = capability.parse().unwrap();
    Asked {
        risk: capability.risk(),
        capability,
        required,
        reason: reason.map(|r| palisade_manifest::shown(r, 300)),
        too_wide: None,
    }
}

fn question(asked: Vec<Asked>) -> Question {
    Question {
        who: "Word counter (word-counter 1.0.0)".into(),
        origin: "folder /srv/plugins/word-counter (uid 1000)".into(),
        description: Some("Counts words.".into()),
        asked,
        backend: Some("process"),
        guarantees: vec![
            (Guarantee::FsIsolated, Level::Kernel),
            (Guarantee::NetIsolated, Level::Kernel),
            (Guarantee::MemoryCapped, Level::Policed),
        ],
    }
}

fn answers(question: &Question, typed: &str) -> (Vec<String>, String) {
    let mut out = Vec::new();
    let agreed = ask(question, typed.as_bytes(), &mut out, Paint::NONE).unwrap();
    (agreed.iter().map(ToString::to_string).collect(), String::from_utf8(out).unwrap())
}

#[test]
fn the_prompt_says_what_why_how_risky_and_what_is_enforced() {
    let mut wide = asked("fs.read:/**", true, Some("The folder of texts you choose."));
    wide.too_wide = Some("/ is all of the machine; grant the folders that are needed".into());
    let question = question(vec![
        wide,
        asked("storage.kv:counts", false, None),
        asked("event.publish:words.>", false, Some("Tells others\x1b[2J\u{202e} the count.")),
    ]);
    let (agreed, shown) = answers(&question, "yes\ns\n/srv/texts/**\nmaybe\ny\n\n");
    assert_eq!(agreed, ["fs.read:/srv/texts/**", "storage.kv:counts"]);
    insta::assert_snapshot!("consent", shown);
}

#[test]
fn silence_is_no() {
    let question = question(vec![
        asked("fs.read:/srv/**", true, Some("x")),
        asked("secret:db", true, Some("y")),
    ]);
    for typed in ["", "\n", "\n\n", "no\nN\n", "s\n\n"] {
        assert!(answers(&question, typed).0.is_empty(), "{typed:?}");
    }
}

#[test]
fn rights_of_one_kind_are_one_decision_or_one_by_one() {
    let question = question(vec![
        asked("event.publish:a", false, Some("x")),
        asked("event.publish:b", false, Some("x")),
        asked("event.publish:c", true, Some("x")),
    ]);
    assert_eq!(answers(&question, "y\n").0, ["event.publish:a", "event.publish:b"]);
    assert_eq!(answers(&question, "s\nn\ny\n\n").0, ["event.publish:b"]);
    assert_eq!(answers(&question, "n\ny\n").0, ["event.publish:c"]);
}

#[test]
fn nothing_wider_than_what_is_asked_can_be_agreed_to() {
    let question = question(vec![asked("fs.read:/srv/texts/**", true, Some("x"))]);
    let (agreed, shown) = answers(&question, "s\n/srv/**\n/etc/passwd\n/srv/texts/a.txt\n");
    assert_eq!(agreed, ["fs.read:/srv/texts/a.txt"]);
    assert_eq!(shown.matches("more than it asks for").count(), 2);
}
