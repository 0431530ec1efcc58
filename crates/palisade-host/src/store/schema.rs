//! The tables of `host.db` and the steps from each version of them to the next.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::StoreError;

/// Each step brings the schema from its index to its index + 1 (`PRAGMA user_version`). Steps are only
/// ever added.
const STEPS: &[&str] = &["
    CREATE TABLE slots (
        id TEXT NOT NULL,
        origin TEXT NOT NULL,
        slot INTEGER NOT NULL UNIQUE CHECK (slot BETWEEN 0 AND 65535),
        PRIMARY KEY (id, origin)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE plugins (
        -- AUTOINCREMENT: a key that was forgotten is never given to another plugin.
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        origin TEXT NOT NULL,
        digest BLOB NOT NULL CHECK (length(digest) = 32),
        generation INTEGER NOT NULL CHECK (generation > 0),
        starts INTEGER NOT NULL CHECK (starts >= 0),
        first_seen INTEGER NOT NULL,
        last_seen INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE grants (
        plugin INTEGER NOT NULL REFERENCES plugins (key) ON DELETE CASCADE,
        capability TEXT NOT NULL,
        resolved TEXT NOT NULL,
        by TEXT NOT NULL,
        at INTEGER NOT NULL,
        until INTEGER,
        digest BLOB NOT NULL CHECK (length(digest) = 32),
        PRIMARY KEY (plugin, capability)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE consents (
        number INTEGER PRIMARY KEY,
        plugin INTEGER NOT NULL REFERENCES plugins (key) ON DELETE CASCADE,
        by TEXT NOT NULL,
        at INTEGER NOT NULL,
        digest BLOB NOT NULL CHECK (length(digest) = 32),
        agreed TEXT
    ) STRICT;
    CREATE INDEX consents_of_plugin ON consents (plugin);
"];

/// Brings the schema up to date; a file of a newer version is left as it is.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = tx.pragma_query_value(None, "user_version", |r| r.get(0))?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    let done = usize::try_from(found)
        .map_err(|_| StoreError::Corrupt(format!("schema version {found}")))?;
    for step in STEPS.iter().skip(done) {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "user_version", known)?;
    tx.commit()?;
    Ok(())
}
