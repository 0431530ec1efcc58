use std::{os::unix::fs::symlink, sync::Arc, time::Duration};

use palisade_audit::RecordKind;
use palisade_host::{Consent, Effect, GrantOptions, RightState, State};
use palisade_model::{ErrorCode, Kind};
use palisade_sandbox::{KillReason, RightsChange};
use serde_json::json;

use crate::support::{Stage, cap, write_plugin};

const TWO: &str = "capabilities:\n  required:\n    - { capability: 'host.call:profile', reason: greets }\n    - 'storage.kv:notes'\n  optional:\n    - { capability: 'event.publish:news.>', reason: tells }\n";

#[tokio::test]
async fn what_is_missing_is_named_with_the_options_that_grant_it() {
    let stage = Stage::new().await;
    let plugin = stage.load("a", TWO).await;
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Denied);
    assert_eq!(
        failure.message,
        "required capabilities are missing: storage.kv:notes, host.call:profile"
    );
    assert_eq!(failure.hint.as_deref(), Some("--grant storage.kv:notes --grant host.call:profile"));
    assert_eq!(plugin.status().state, State::Failed);
    assert!(stage.echo.knobs.specs.lock().unwrap().is_empty());
    assert_eq!(
        stage.recorder.ends(RecordKind::Launch)[0].1,
        Some(ErrorCode::Denied),
        "and recorded"
    );

    assert_eq!(plugin.grant(cap("storage.kv:notes")).await.unwrap(), Effect::AtNextStart);
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.hint.as_deref(), Some("--grant host.call:profile"));
    plugin.grant(cap("host.call:profile")).await.unwrap();
    plugin.start().await.unwrap();
    let rights = stage.echo.knobs.initialized.lock().unwrap()[0]["rights"].clone();
    assert_eq!(
        rights,
        json!(["storage.kv:notes", "host.call:profile"]),
        "what is optional stays out"
    );
}

#[tokio::test]
async fn only_what_is_asked_for_can_be_granted() {
    let policy =
        palisade_policy::parse("forbid = [\"event.publish:news.secret\", \"storage.kv:*\"]")
            .unwrap();
    let stage = Stage::with(|b| b.policy(policy)).await;
    let plugin = stage.load("a", TWO).await;
    let failure = plugin.grant(cap("secret:key")).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::InvalidParams);
    assert!(failure.hint.unwrap().contains("it asks for storage.kv:notes, host.call:profile"));
    let failure = plugin.grant(cap("storage.kv:notes")).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Denied);
    assert_eq!(failure.rule.as_deref(), Some("forbid storage.kv:*"));
    // Wider than asked gives what is asked.
    plugin.grant(cap("host.call:*")).await.unwrap();
    let granted = plugin.plan().await.unwrap().requested;
    let state = |kind| granted.iter().find(|r| r.capability.kind() == kind).unwrap().state.clone();
    assert_eq!(state(Kind::HostCall), RightState::Granted);
    assert!(matches!(state(Kind::StorageKv), RightState::Forbidden(_)));
    assert_eq!(state(Kind::EventPublish), RightState::Missing);
}

#[tokio::test]
async fn grants_outlive_the_host_and_are_void_for_another_manifest() {
    let stage = Stage::new().await;
    let plugin = stage.load("a", TWO).await;
    plugin.grant_requested().await.unwrap();
    plugin.start().await.unwrap();
    let Stage { host, tmp, .. } = stage;
    host.shutdown().await.unwrap();
    drop(host);

    let stage = Stage::at(tmp, |b| b).await;
    let dir = stage.tmp.path().join("plugins/a");
    let plugin = stage.host.load(&dir).await.unwrap();
    plugin.start().await.unwrap();
    assert_eq!(plugin.status().instance.unwrap().serial, 2, "the count of starts goes on");
    plugin.stop().await.unwrap();

    write_plugin(&dir, "a", &format!("{TWO}# another byte\n"));
    let plugin = stage.host.load(&dir).await.unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Denied);
    assert!(plugin.grants().await.unwrap().iter().all(|g| !g.counts));
    let plan = plugin.plan().await.unwrap();
    assert_eq!(plan.unused_grants.len(), 3, "the plan says why");
    plugin.grant_requested().await.unwrap();
    plugin.start().await.unwrap();
    assert_eq!(plugin.status().instance.unwrap().generation.0, 2);
}

#[tokio::test]
async fn grants_for_this_host_only_are_not_stored() {
    let stage = Stage::new().await;
    let plugin = stage.load("a", TWO).await;
    plugin.grant_requested_with(GrantOptions::new().for_this_host()).await.unwrap();
    assert!(plugin.grants().await.unwrap().iter().all(|g| g.counts && !g.stored));
    plugin.start().await.unwrap();
    let Stage { host, tmp, .. } = stage;
    drop(host);
    let stage = Stage::at(tmp, |b| b).await;
    let plugin = stage.host.load(stage.tmp.path().join("plugins/a")).await.unwrap();
    assert!(plugin.grants().await.unwrap().is_empty());
    assert_eq!(plugin.start().await.unwrap_err().code, ErrorCode::Denied);
}

#[tokio::test]
async fn a_grant_ends_when_its_time_is_over_also_while_the_plugin_runs() {
    let stage = Stage::new().await;
    let plugin = stage.load("a", TWO).await;
    plugin.grant_requested().await.unwrap();
    let short = GrantOptions::new().valid_for(Duration::from_secs(1));
    plugin.grant_with(cap("storage.kv:notes"), short).await.unwrap();
    plugin.start().await.unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(5), plugin.wait()).await.unwrap().unwrap();
    assert!(exit.is_clean(), "{exit:?}: it cannot run without what has ended");
    assert_eq!(plugin.start().await.unwrap_err().code, ErrorCode::Denied);
}

#[tokio::test]
async fn a_revocation_holds_at_once() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", TWO).await;
    let publish = json!({"method": "event.publish", "params": {"subject": "news.x", "data": 1}});
    plugin.call("ask", &publish).await.unwrap();
    let effect = plugin.revoke(cap("event.publish:>")).await.unwrap();
    assert_eq!(effect, Effect::InForce);
    let failure = plugin.call("ask", &publish).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Denied);
    assert_eq!(plugin.grant(cap("event.publish:news.>")).await.unwrap(), Effect::InForce);
    plugin.call("ask", &publish).await.unwrap();

    assert_eq!(
        plugin.revoke(cap("storage.kv:notes")).await.unwrap(),
        Effect::Ended,
        "it was required"
    );
    assert_eq!(plugin.status().state, State::Stopped);
    assert_eq!(stage.echo.alive(), 0);
    let nothing = plugin.revoke(cap("storage.kv:notes")).await.unwrap_err();
    assert_eq!(nothing.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_wall_that_cannot_change_ends_the_plugin_for_less_and_waits_for_more() {
    let stage = Stage::new().await;
    let data = stage.tmp.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let path = format!("fs.read:{}/**", data.display());
    let more =
        format!("capabilities:\n  optional:\n    - {{ capability: '{path}', reason: reads }}\n");
    *stage.echo.knobs.rights_change.lock().unwrap() = RightsChange::NeedsRestart;
    let plugin = stage.load("a", &more).await;
    plugin.start().await.unwrap();
    assert_eq!(plugin.grant(cap(&path)).await.unwrap(), Effect::NeedsRestart);
    assert_eq!(plugin.status().state, State::Running);
    plugin.stop().await.unwrap();
    plugin.start().await.unwrap();
    assert_eq!(plugin.revoke(cap(&path)).await.unwrap(), Effect::Ended);
    assert_eq!(stage.echo.knobs.kills.lock().unwrap().last(), Some(&KillReason::Asked));
}

#[tokio::test]
async fn a_granted_link_holds_for_where_it_led_and_not_for_where_it_leads() {
    let stage = Stage::new().await;
    let at = |name: &str| stage.tmp.path().join(name);
    for folder in ["texts", "secrets"] {
        std::fs::create_dir(at(folder)).unwrap();
    }
    symlink(at("texts"), at("link")).unwrap();
    let link = format!("fs.read:{}/**", at("link").display());
    let more =
        format!("capabilities:\n  required:\n    - {{ capability: '{link}', reason: reads }}\n");
    let plugin = stage.load("a", &more).await;
    plugin.grant_requested().await.unwrap();
    plugin.start().await.unwrap();
    let rights = Arc::clone(&stage.echo.knobs.specs.lock().unwrap()[0].rights);
    let real = at("texts").canonicalize().unwrap();
    assert_eq!(
        rights.to_string(),
        format!("fs.read:{}/**", real.display()),
        "the wall gets the real path"
    );
    plugin.stop().await.unwrap();

    std::fs::remove_file(at("link")).unwrap();
    symlink(at("secrets"), at("link")).unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Denied);
    assert!(failure.message.contains("which is not what was granted"), "{failure}");
    let plan = plugin.plan().await.unwrap();
    assert!(matches!(plan.requested[0].state, RightState::Unusable(_)));

    std::fs::remove_file(at("link")).unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NotFound);
    assert!(failure.message.contains("there is no such file or folder"), "{failure}");
    assert_eq!(plugin.grant_requested().await.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_wide_grant_does_not_reach_through_a_link_out_of_it() {
    let stage = Stage::new().await;
    let at = |name: &str| stage.tmp.path().join(name);
    std::fs::create_dir_all(at("home")).unwrap();
    std::fs::create_dir_all(at("etc")).unwrap();
    symlink(at("etc"), at("home/docs")).unwrap();
    let asked = format!("fs.read:{}/**", at("home/docs").display());
    let more =
        format!("capabilities:\n  required:\n    - {{ capability: '{asked}', reason: reads }}\n");
    let plugin = stage.load("a", &more).await;
    plugin.grant(cap(&format!("fs.read:{}/**", at("home").display()))).await.unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Denied, "{failure}");
    plugin.grant(cap(&asked)).await.unwrap();
    plugin.start().await.unwrap();
}

#[tokio::test]
async fn a_forbid_holds_for_where_a_link_leads() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().canonicalize().unwrap().join(name);
    std::fs::create_dir(at("private")).unwrap();
    symlink(at("private"), at("innocent")).unwrap();
    let policy =
        palisade_policy::parse(&format!("forbid = ['fs.read:{}/**']", at("private").display()))
            .unwrap();
    let asked = format!("fs.read:{}/**", at("innocent").display());
    let more =
        format!("capabilities:\n  required:\n    - {{ capability: '{asked}', reason: reads }}\n");
    let stage = Stage::with(|b| b.policy(policy)).await;
    let plugin = stage.load("a", &more).await;
    plugin.grant_requested().await.unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Denied);
    assert!(failure.message.contains("forbidden"), "{failure}");
}

#[tokio::test]
async fn consent_is_stored_with_its_answer_and_the_policy_may_exclude_it() {
    let stage = Stage::new().await;
    let plugin = stage.load("a", TWO).await;
    plugin.consent(Consent::Refused).await.unwrap();
    assert_eq!(plugin.start().await.unwrap_err().code, ErrorCode::Denied);
    let agreed = vec![cap("storage.kv:notes"), cap("host.call:profile")];
    plugin.consent(Consent::Agreed(agreed.clone())).await.unwrap();
    plugin.start().await.unwrap();
    let answers = plugin.consents().await.unwrap();
    assert_eq!(answers.iter().map(|c| c.agreed.clone()).collect::<Vec<_>>(), [None, Some(agreed)]);
    assert_eq!(stage.recorder.ends(RecordKind::Consent).len(), 2);

    let policy = palisade_policy::parse("allow-consent = false").unwrap();
    let stage = Stage::with(|b| b.policy(policy)).await;
    let plugin = stage.load("a", TWO).await;
    let refused = plugin.consent(Consent::Agreed(vec![cap("storage.kv:notes")])).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Denied);
    assert!(plugin.grants().await.unwrap().is_empty());
    plugin.grant_requested().await.unwrap();
    plugin.start().await.unwrap();
}

#[tokio::test]
async fn granted_environment_variables_are_handed_over_and_no_others() {
    let stage = Stage::new().await;
    let more = "capabilities:\n  required:\n    - { capability: 'env:PATH', reason: finds }\n";
    stage.started("a", more).await;
    let env = stage.echo.knobs.specs.lock().unwrap()[0].env.clone();
    assert_eq!(env.keys().collect::<Vec<_>>(), ["PATH"]);
    assert_eq!(env["PATH"], std::env::var("PATH").unwrap());
}

#[tokio::test]
async fn everything_can_be_taken_back_at_once_and_each_grant_names_its_manifest() {
    let stage = Stage::new().await;
    let more = "capabilities:\n  optional:\n    - 'event.subscribe:mail.>'\n    - 'event.subscribe:news.>'\n    - 'storage.kv:*'\n";
    let plugin = stage.started("a", more).await;
    plugin.grant_with(cap("storage.kv:*"), GrantOptions::new().for_this_host()).await.unwrap();
    let grants = plugin.grants().await.unwrap();
    assert_eq!(grants.len(), 4);
    let digest = plugin.manifest().digest().to_string();
    assert!(grants.iter().all(|g| g.digest == digest && g.counts), "{grants:?}");
    let (taken, effect) = plugin.revoke_all().await.unwrap();
    assert_eq!((taken.len(), effect), (4, Effect::InForce));
    assert_eq!(plugin.grants().await.unwrap(), []);
    // What is queued before the subscription's task has gone is held against the rights all the same.
    let mut queued = 1;
    for _ in 0..200 {
        queued = stage.host.emit("mail.new", &1).await.unwrap().queued;
        if queued == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(queued, 0, "nobody is subscribed any more");
    let record = stage.recorder.of(RecordKind::Grant).pop().unwrap();
    assert_eq!(record.target.as_deref(), Some("everything"));
    assert_eq!(plugin.revoke_all().await.unwrap().0, []);
}
