mod files;
mod model;
mod rights;
mod values;

use palisade_broker::{Broker, Caller};
use palisade_model::{ErrorCode, Failure};
use serde_json::{Value, json};

use super::*;
use crate::testing::{ManualClock, ask, broker, plugin};

struct Room {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    storage: Storage,
    broker: Broker,
}

fn room() -> Room {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let storage = Storage::open(folder.path().join("storage"), clock.clone()).unwrap();
    let (broker, _) = broker(|services, _| register(services, &storage).unwrap());
    Room { folder, clock, storage, broker }
}

impl Room {
    async fn ask(&self, who: &Arc<Caller>, method: &str, params: Value) -> Result<Value, Failure> {
        ask(&self.broker, who, &format!("storage.{method}"), params).await
    }

    async fn ok(&self, who: &Arc<Caller>, method: &str, params: Value) -> Value {
        self.ask(who, method, params).await.unwrap()
    }

    async fn code(&self, who: &Arc<Caller>, method: &str, params: Value) -> ErrorCode {
        self.ask(who, method, params).await.unwrap_err().code
    }

    fn file(&self, who: &Caller) -> PathBuf {
        self.storage.path_of(&who.instance().unwrap().plugin)
    }
}

fn all(id: &str) -> Arc<Caller> {
    plugin(id, &["storage.kv:*"])
}
