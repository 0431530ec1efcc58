//! Storage against a map.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8, Option<u64>),
    Delete(u8),
    Cas(u8, bool, u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..6;
    prop_oneof![
        (key.clone(), any::<u8>(), proptest::option::of(1u64..50))
            .prop_map(|(k, v, t)| Step::Set(k, v, t)),
        key.clone().prop_map(Step::Delete),
        (key, any::<bool>(), any::<u8>()).prop_map(|(k, right, v)| Step::Cas(k, right, v)),
        (1u64..60).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the order of steps, storage holds what a map would.
    #[test]
    fn storage_is_a_map_with_expiry(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let room = room();
            let p = all("p");
            let mut now = 0;
            let mut model: std::collections::BTreeMap<String, (u8, u64, Option<u64>)> = Default::default();
            for step in steps {
                model.retain(|_, (_, _, expires)| expires.is_none_or(|at| at > now));
                match step {
                    Step::Set(k, v, ttl) => {
                        let key = format!("k{k}");
                        let mut params = json!({"key": key, "value": v});
                        if let Some(ttl) = ttl {
                            params["ttl_ms"] = json!(ttl);
                        }
                        let version = room.ok(&p, "set", params).await["version"].as_u64().unwrap();
                        model.insert(key, (v, version, ttl.map(|ttl| now + ttl)));
                    }
                    Step::Delete(k) => {
                        let key = format!("k{k}");
                        let deleted = room.ok(&p, "delete", json!({"key": key})).await;
                        assert_eq!(deleted["deleted"], json!(model.remove(&key).is_some()));
                    }
                    Step::Cas(k, right, v) => {
                        let key = format!("k{k}");
                        let is = model.get(&key).map_or(0, |e| e.1);
                        let version = if right { is } else { is + 1000 };
                        let params = json!({"key": key, "version": version, "value": v});
                        let answer = room.ok(&p, "compare_and_set", params).await;
                        assert_eq!(answer["stored"], json!(right));
                        if right {
                            model.insert(key, (v, answer["version"].as_u64().unwrap(), None));
                        } else {
                            assert_eq!(answer["version"], json!(is));
                        }
                    }
                    Step::Pass(ms) => {
                        now += ms;
                        room.clock.advance(Duration::from_millis(ms));
                    }
                }
            }
            model.retain(|_, (_, _, expires)| expires.is_none_or(|at| at > now));
            let listed = room.ok(&p, "list", json!({"values": true})).await;
            let listed: Vec<_> = listed["entries"].as_array().unwrap().iter()
                .map(|e| (e["key"].as_str().unwrap().to_owned(), e["value"].as_u64().unwrap(), e["version"].as_u64().unwrap()))
                .collect();
            let wanted: Vec<_> = model.into_iter().map(|(k, (v, n, _))| (k, u64::from(v), n)).collect();
            assert_eq!(listed, wanted);
        });
    }
}
