//! A host as an application has it, and the manifests of the plugins that are measured in it.

use std::{path::Path, sync::Arc};

use palisade_audit::{JsonLinesRecorder, Recorder};
use palisade_host::Host;
use palisade_sandbox::Backend;

use crate::plugin::Result;

/// A host that keeps its state and its record in `folder`.
pub(crate) async fn open(folder: &Path, backend: Arc<dyn Backend>) -> Result<Host> {
    let recorder: Arc<dyn Recorder> =
        Arc::new(JsonLinesRecorder::open(folder.join("record.jsonl"))?);
    let host = Host::builder().state_dir(folder.join("state")).backend(backend);
    Ok(host.recorder(recorder).build().await?)
}

/// A manifest with one tool, `echo`; `entry` are the lines that say how the plugin is started.
pub(crate) fn echo_manifest(id: &str, entry: &str) -> String {
    manifest(id, entry, "echo", "Gives back what it is given.")
}

/// A manifest with one tool.
pub(crate) fn manifest(id: &str, entry: &str, tool: &str, description: &str) -> String {
    format!(
        "api = \"palisade/1\"\nid = \"{id}\"\nversion = \"1.0.0\"\n\n[entry]\n{entry}\n\n\
         [[contributes.tools]]\nname = \"{tool}\"\ndescription = \"{description}\"\n\
         input = {{ type = \"object\" }}\n"
    )
}
