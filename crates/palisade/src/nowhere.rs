//! The backend of platforms that have none: it says so, and what to do, and starts nothing.

use std::sync::Arc;

use palisade_model::GuaranteeSet;
use palisade_sandbox::{
    Artifact, Assessment, Backend, Facts, LaunchSpec, Prepared, SandboxError, Unavailable,
};

type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// See the module.
pub(crate) struct Nowhere;

fn reason() -> String {
    format!("this build of Palisade has no walls for {}", std::env::consts::OS)
}

const REMEDY: &str =
    "run it on Linux (a virtual machine or a container will do) with the feature `process`";

impl Backend for Nowhere {
    fn name(&self) -> &'static str {
        "none"
    }

    fn probe(&self) -> BoxFuture<'_, Arc<Facts>> {
        let unavailable = Unavailable { reason: reason(), remedy: REMEDY.into() };
        let facts = Facts {
            unavailable: Some(unavailable),
            guarantees: GuaranteeSet::new(),
            findings: Vec::new(),
        };
        Box::pin(std::future::ready(Arc::new(facts)))
    }

    fn assess<'a>(&'a self, _: &'a LaunchSpec) -> BoxFuture<'a, Assessment> {
        Box::pin(std::future::ready(Assessment::default()))
    }

    fn prepare<'a>(
        &'a self,
        _: &'a Artifact,
    ) -> BoxFuture<'a, Result<Arc<dyn Prepared>, SandboxError>> {
        let (reason, remedy) = (reason(), REMEDY.to_owned());
        let error = SandboxError::Unavailable { backend: "none", reason, remedy };
        Box::pin(std::future::ready(Err(error)))
    }
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
            .backend(Arc::new(Nowhere))
            .build()
            .await
            .unwrap();
        let failure = host.load(&dir).await.unwrap().start().await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::NoBackend);
        assert!(failure.message.contains("has no walls for"), "{failure}");
        assert_eq!(failure.hint.as_deref(), Some(REMEDY));
    }
}
