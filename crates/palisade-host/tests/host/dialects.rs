use palisade_host::HostError;
use palisade_model::ErrorCode;

use crate::support::Stage;

#[tokio::test]
async fn what_a_dialect_cannot_carry_is_refused_when_the_plugin_is_loaded() {
    let stage = Stage::new().await;
    for (entry, more, what) in [
        (
            "{ kind: jsonl, file: main.py, runtime: python }",
            "  hooks: [{ event: a.b }]\n",
            "hooks (a.b",
        ),
        (
            "{ kind: mcp, command: python3, args: [main.py] }",
            "  commands: [{ name: go, description: Goes. }]\n",
            "commands (go",
        ),
        (
            "{ kind: mcp, command: python3, args: [main.py] }",
            "capabilities: { required: ['event.subscribe:a.>'] }\n",
            "events (event.subscribe:a.>",
        ),
    ] {
        let dir = stage.folder("a", more);
        let manifest = std::fs::read_to_string(dir.join("plugin.yaml")).unwrap();
        let manifest = manifest.replace("{ kind: python, file: main.py }", entry);
        std::fs::write(dir.join("plugin.yaml"), manifest).unwrap();
        let refused = stage.host.load(&dir).await.unwrap_err();
        assert!(matches!(refused, HostError::Unsupported { .. }), "{refused:?}");
        assert_eq!(refused.code(), ErrorCode::ManifestInvalid);
        assert!(refused.to_string().contains(what), "{refused}");
        assert!(refused.hint().unwrap().contains("plugin protocol"));
    }
    // Nothing of it is known: another plugin may take the id.
    assert!(stage.host.plugin(&palisade_model::PluginId::parse("a").unwrap()).is_none());
}
