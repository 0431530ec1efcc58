//! The backend of builds that have no walls: it says so, and what to do, and starts nothing.

use std::sync::Arc;

use palisade_sandbox::{AbsentBackend, Backend, Runtime, Unavailable};

const REMEDY: &str =
    "run it on Linux (a virtual machine or a container will do) with the feature `process`";

/// See the module.
pub(crate) fn backend() -> Arc<dyn Backend> {
    let reason = format!("this build of Palisade has no walls for {}", std::env::consts::OS);
    let why = Unavailable { reason, remedy: REMEDY.to_owned() };
    Arc::new(AbsentBackend::new("none", Runtime::is_process, why))
}

#[cfg(test)]
mod tests {
    use palisade_host::Host;
    use palisade_model::ErrorCode;

    use super::*;

    #[tokio::test]
    async fn where_there_is_no_wall_nothing_starts_and_the_reason_is_given() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("plugin");
        std::fs::create_dir(&dir).unwrap();
        let manifest =
            "api: palisade/1\nid: a\nversion: 1.0.0\nentry: { kind: python, file: main.py }\n";
        std::fs::write(dir.join("plugin.yaml"), manifest).unwrap();
        std::fs::write(dir.join("main.py"), "").unwrap();
        let host = Host::builder()
            .state_dir(tmp.path().join("state"))
            .backend(backend())
            .build()
            .await
            .unwrap();
        let failure = host.load(&dir).await.unwrap().start().await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::NoBackend);
        assert!(failure.message.contains("has no walls for"), "{failure}");
        assert_eq!(failure.hint.as_deref(), Some(REMEDY));
    }
}
