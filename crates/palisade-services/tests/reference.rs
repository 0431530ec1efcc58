//! The committed reference page is what the registration says.
// The helpers of a test are a test too; the lint sees that only inside `#[test]`.
#![allow(clippy::unwrap_used)]

use std::{path::Path, sync::Arc};

use palisade_audit::{BoxFuture, MemoryRecorder, SystemClock};
use palisade_broker::{Gate, LocalBus, Service, ServiceRegistry};
use palisade_egress::{AddressPolicy, Guard, http::Tls};
use palisade_model::Failure;
use palisade_services::{
    Builtin,
    desktop::Data,
    http::Fetcher,
    log::TracingSink,
    reference_markdown,
    secret::{SecretValue, Secrets},
    storage::Storage,
};

struct NoSecrets;

impl Secrets for NoSecrets {
    fn read<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<SecretValue>, Failure>> {
        Box::pin(async { Ok(None) })
    }
}

struct NoPlugins;

impl palisade_services::plugins::Plugins for NoPlugins {
    fn call(
        &self,
        _: palisade_broker::Context,
        _: palisade_services::plugins::CallParams,
    ) -> palisade_audit::BoxFuture<'static, Result<palisade_model::Payload, palisade_model::Failure>>
    {
        Box::pin(async {
            Err(palisade_model::Failure::new(
                palisade_model::ErrorCode::NotFound,
                "no other plugin is loaded",
            ))
        })
    }
}

fn builtin() -> ServiceRegistry {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::new(Arc::new(MemoryRecorder::new(1)));
    let builtin = Builtin {
        sink: Arc::new(TracingSink),
        bus: LocalBus::new(),
        storage: Storage::open(folder.path(), Arc::new(SystemClock)).unwrap(),
        http: Fetcher::new(gate, Guard::new(AddressPolicy::new()), Tls::new().unwrap()),
        data: Arc::new(Data::new()),
        secrets: Arc::new(NoSecrets),
        plugins: Arc::new(NoPlugins),
    };
    let services = ServiceRegistry::new();
    builtin.register(&services).unwrap();
    services
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
