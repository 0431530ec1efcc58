//! The committed reference page is what the registration says.
// The helpers of a test are a test too; the lint sees that only inside `#[test]`.
#![allow(clippy::unwrap_used)]

mod common;

use std::{path::Path, sync::Arc};

use palisade_broker::{Service, ServiceRegistry};
use palisade_model::Failure;
use palisade_services::{log::TracingSink, reference_markdown};

fn builtin() -> Arc<ServiceRegistry> {
    let folder = tempfile::tempdir().unwrap();
    common::room(folder.path(), Arc::new(TracingSink)).services
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/services.md");
    let page = reference_markdown(&builtin());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        committed, page,
        "docs/reference/services.md is out of date: UPDATE_REFERENCE=1 cargo test -p palisade-services"
    );
}

#[test]
fn a_service_of_the_application_appears_with_its_right() {
    let services = builtin();
    let service = Service::new("get_user_profile", |_cx, (): ()| async move {
        Ok::<String, Failure>(String::new())
    });
    services.register(service.describe("Looks up a user.").idempotent()).unwrap();
    let page = reference_markdown(&services);
    let at = page.find("## get_user_profile").expect("a section of its own");
    assert!(page[at..].contains("Looks up a user.\n\n- Right: `host.call:get_user_profile`"));
    assert!(page[at..].contains("- Doing it twice: harmless"));
    assert!(at > page.find("## host.call").unwrap());
}
