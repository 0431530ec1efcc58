use super::*;

fn value(text: &str) -> SecretValue {
    SecretValue::new(text).unwrap()
}

fn store() -> (tempfile::TempDir, SecretStore) {
    let state = tempfile::tempdir().unwrap();
    let store = SecretStore::new(state.path());
    (state, store)
}

#[test]
fn what_is_set_is_found_replaced_listed_and_removed() {
    let (_state, store) = store();
    assert_eq!(store.get("a").unwrap(), None);
    assert_eq!(store.list().unwrap(), []);
    assert!(!store.remove("a").unwrap());
    assert!(!store.set("b/with:every.sign_@$+-", &value("two\nlines\n"), 10).unwrap());
    assert!(!store.set("a", &value("one"), 11).unwrap());
    assert!(store.set("a", &value("other"), 12).unwrap());
    assert_eq!(store.get("a").unwrap().unwrap().expose(), "other");
    assert_eq!(store.get("b/with:every.sign_@$+-").unwrap().unwrap().expose(), "two\nlines\n");
    let listed = store.list().unwrap();
    let shown: Vec<_> = listed.iter().map(|i| (i.name.as_str(), i.created, i.changed)).collect();
    assert_eq!(shown, [("a", 11, 12), ("b/with:every.sign_@$+-", 10, 10)]);
    assert!(store.remove("a").unwrap());
    assert_eq!(store.get("a").unwrap(), None);
}

#[test]
fn the_longest_value_and_name_come_back_as_they_were() {
    let (_state, store) = store();
    let (name, text) = ("n".repeat(256), "é".repeat(MAX_SECRET / 2));
    store.set(&name, &value(&text), 1).unwrap();
    assert_eq!(store.get(&name).unwrap().unwrap().expose(), text);
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_it_and_what_others_can_read_is_not_taken() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    let (_state, store) = store();
    store.set("a", &value("one"), 1).unwrap();
    let file = store.file("a");
    assert_eq!((mode(&store.dir), mode(&file)), (0o700, 0o600));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(store.get("a").unwrap_err().message.contains("only its owner"));
    fs::rename(&file, store.dir.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(store.dir.join("elsewhere"), &file).unwrap();
    assert!(store.get("a").is_err(), "a link is not followed");
}

#[test]
fn a_file_that_is_not_a_secret_is_told_apart() {
    let (_state, store) = store();
    store.set("a", &value("one"), 1).unwrap();
    store.set("b", &value("two"), 1).unwrap();
    fs::rename(store.file("b"), store.file("a")).unwrap();
    assert!(store.get("a").unwrap_err().message.contains("another one's"));
    for bad in ["", "{}\nx", "no header", "{\"name\":\"a\",\"created\":1,\"changed\":1}\n"] {
        store.set("a", &value("one"), 1).ok();
        let _ = fs::remove_file(store.file("a"));
        store.set("a", &value("one"), 1).unwrap();
        fs::write(store.file("a"), bad).unwrap();
        assert_eq!(store.get("a").unwrap_err().code, ErrorCode::Internal, "{bad}");
    }
}

#[test]
fn what_a_crashed_writer_has_left_is_removed_by_the_next() {
    let (_state, store) = store();
    store.set("a", &value("one"), 1).unwrap();
    fs::write(store.dir.join("new-12345"), "half a sec").unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    store.set("b", &value("two"), 1).unwrap();
    assert!(!store.dir.join("new-12345").exists());
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let (_state, store) = store();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for turn in 0..10 {
                    store.set(&format!("w{writer}"), &value(&turn.to_string()), turn).unwrap();
                    store.set("shared", &value(&"x".repeat(1000)), turn).unwrap();
                }
            });
        }
    });
    assert_eq!(store.list().unwrap().len(), 5);
    assert_eq!(store.get("w3").unwrap().unwrap().expose(), "9");
    assert_eq!(store.get("shared").unwrap().unwrap().expose().len(), 1000);
}

#[test]
fn variables_that_run_foreign_code_are_refused() {
    assert!(check_variable("GITHUB_TOKEN", "github.GITHUB_TOKEN").is_ok());
    for (variable, name) in
        [("1A", "a"), ("", "a"), ("A=B", "a"), ("A", "a*"), ("A", ""), ("É", "a")]
    {
        assert_eq!(check_variable(variable, name).unwrap_err().code, ErrorCode::InvalidParams);
    }
    for variable in ["LD_PRELOAD", "NODE_OPTIONS", "PYTHONPATH"] {
        assert_eq!(check_variable(variable, "a").unwrap_err().code, ErrorCode::Denied);
    }
}
