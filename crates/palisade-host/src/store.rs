//! `host.db`: which plugins this host knows, what was granted to them and who consented.
//!
//! One SQLite file in WAL mode with one connection; every call runs on a blocking thread, so that a
//! slow disk stalls no task. What plugins keep lies elsewhere. Nothing is decided here.

mod schema;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use palisade_model::{Capability, PluginId, PluginRef, Principal};
use palisade_policy::Grant;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use crate::error::{HostError, StoreError};

/// How long a locked database is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Plugin numbers: from 0, since user ids are derived from them.
const SLOTS: i64 = palisade_sandbox::slots::PLUGINS as i64;

/// What the host knows about a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its row.
    pub(crate) key: i64,
    /// Its number on this host.
    pub(crate) slot: u32,
    /// Which version of its manifest this is, counted from 1.
    pub(crate) generation: u64,
}

/// A grant as it is stored: with the path that it led to when it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredGrant {
    /// The grant, as it was written.
    pub(crate) grant: Grant,
    /// The capability with the symbolic links of its path resolved when it was granted; the same where
    /// there is no path.
    pub(crate) resolved: Capability,
}

/// Somebody's answer to what a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsentRow {
    /// Who answered.
    pub(crate) by: Principal,
    /// When, in seconds since 1970.
    pub(crate) at: u64,
    /// For which manifest.
    pub(crate) digest: [u8; 32],
    /// What was agreed to; `None` where it was refused.
    pub(crate) agreed: Option<Vec<Capability>>,
}

/// What a transaction does, and whether it must outlive a power failure (`PRAGMA synchronous`: in WAL
/// mode FULL syncs each commit, NORMAL only checkpoints).
#[derive(Clone, Copy)]
enum Mode {
    Read,
    Count,
    Durable,
}

/// The database. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Store {
    connection: Arc<Mutex<Connection>>,
}

/// Makes the file one that only its owner reads, whoever may pass through the folder. What SQLite puts beside it gets its
/// mode. Where this fails, SQLite says why it cannot open the file.
fn keep_private(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        if let Ok(file) = options.open(path)
            && file.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
        {
            let _ = file.set_permissions(std::fs::Permissions::from_mode(0o600));
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

impl Store {
    /// Opens or creates the database and brings its schema up to date.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        blocking(move || {
            keep_private(&path);
            let mut connection = Connection::open(&path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.pragma_update(None, "trusted_schema", false)?;
            schema::migrate(&mut connection)?;
            Ok(Self { connection: Arc::new(Mutex::new(connection)) })
        })
        .await
    }

    async fn with<T, E>(
        &self,
        mode: Mode,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let (behavior, synchronous) = match mode {
                Mode::Read => (TransactionBehavior::Deferred, "NORMAL"),
                // IMMEDIATE: a second process waits here, and not in the middle.
                Mode::Count => (TransactionBehavior::Immediate, "NORMAL"),
                Mode::Durable => (TransactionBehavior::Immediate, "FULL"),
            };
            connection.pragma_update(None, "synchronous", synchronous).map_err(StoreError::from)?;
            let transaction =
                connection.transaction_with_behavior(behavior).map_err(StoreError::from)?;
            let result = work(&transaction)?;
            transaction.commit().map_err(StoreError::from)?;
            Ok(result)
        })
        .await
    }

    /// Notes that a plugin with this manifest is at hand. Another origin of the same id is refused.
    pub(crate) async fn see(
        &self,
        plugin: Arc<PluginRef>,
        digest: [u8; 32],
        now: u64,
    ) -> Result<Known, HostError> {
        self.with(Mode::Durable, move |tx| {
            let (id, origin) = (plugin.id.as_str(), to_json(&plugin.origin)?);
            let row = tx
                .query_row(
                    "SELECT key, origin, digest, generation FROM plugins WHERE id = ?1",
                    [id],
                    |r| {
                        Ok((
                            r.get::<_, i64>(0)?,
                            r.get::<_, String>(1)?,
                            r.get::<_, [u8; 32]>(2)?,
                            r.get::<_, i64>(3)?,
                        ))
                    },
                )
                .optional()
                .map_err(StoreError::from)?;
            let slot = slot(tx, id, &origin)?;
            if let Some((key, known, old, generation)) = row {
                if known != origin {
                    return Err(HostError::OriginConflict {
                        id: plugin.id.clone(),
                        known: from_json(&known)?,
                        new: plugin.origin.clone(),
                    });
                }
                let generation = if old == digest { generation } else { generation.saturating_add(1) };
                tx.execute(
                    "UPDATE plugins SET digest = ?2, generation = ?3, last_seen = ?4 WHERE key = ?1",
                    params![key, digest, generation, sql(now)],
                )
                .map_err(StoreError::from)?;
                return Ok(Known { key, slot, generation: unsigned(generation) });
            }
            tx.execute(
                "INSERT INTO plugins (id, origin, digest, generation, starts, first_seen, last_seen)
                 VALUES (?1, ?2, ?3, 1, 0, ?4, ?4)",
                params![id, origin, digest, sql(now)],
            )
            .map_err(StoreError::from)?;
            Ok(Known { key: tx.last_insert_rowid(), slot, generation: 1 })
        })
        .await
    }

    /// The next serial number of the plugin's instances, and what is granted to it.
    pub(crate) async fn begin_start(
        &self,
        key: i64,
    ) -> Result<(u64, Vec<StoredGrant>), StoreError> {
        self.with(Mode::Count, move |tx| {
            let serial = tx
                .query_row(
                    "UPDATE plugins SET starts = starts + 1 WHERE key = ?1 RETURNING starts",
                    [key],
                    |r| r.get::<_, i64>(0),
                )
                .optional()?
                .ok_or(StoreError::Forgotten)?;
            Ok((unsigned(serial), grants(tx, key)?))
        })
        .await
    }

    /// What is granted to the plugin, for any manifest.
    pub(crate) async fn grants(&self, key: i64) -> Result<Vec<StoredGrant>, StoreError> {
        self.with(Mode::Read, move |tx| grants(tx, key)).await
    }

    /// Stores grants. Those for other manifests of the plugin, and those of the same capabilities, make
    /// room for them.
    pub(crate) async fn grant(&self, key: i64, given: Vec<StoredGrant>) -> Result<(), StoreError> {
        self.with(Mode::Durable, move |tx| insert_grants(tx, key, &given)).await
    }

    /// Takes back every grant that lies within `capability`; gives those that were taken.
    pub(crate) async fn revoke(
        &self,
        key: i64,
        capability: Capability,
    ) -> Result<Vec<Capability>, StoreError> {
        self.with(Mode::Durable, move |tx| {
            let mut taken = Vec::new();
            for stored in grants(tx, key)? {
                let granted = stored.grant.capability;
                if granted.is_subset_of(&capability) {
                    tx.execute(
                        "DELETE FROM grants WHERE plugin = ?1 AND capability = ?2",
                        params![key, granted.to_string()],
                    )?;
                    taken.push(granted);
                }
            }
            Ok(taken)
        })
        .await
    }

    /// Takes back every grant, for whichever manifest; gives those that were taken.
    pub(crate) async fn revoke_all(&self, key: i64) -> Result<Vec<Capability>, StoreError> {
        self.with(Mode::Durable, move |tx| {
            let taken = grants(tx, key)?.into_iter().map(|g| g.grant.capability).collect();
            tx.execute("DELETE FROM grants WHERE plugin = ?1", [key])?;
            Ok(taken)
        })
        .await
    }

    /// Stores an answer, and the grants that it gave, together.
    pub(crate) async fn consent(
        &self,
        key: i64,
        answer: ConsentRow,
        given: Vec<StoredGrant>,
    ) -> Result<(), StoreError> {
        self.with(Mode::Durable, move |tx| {
            insert_grants(tx, key, &given)?;
            let agreed = answer.agreed.as_ref().map(to_json).transpose()?;
            tx.execute(
                "INSERT INTO consents (plugin, by, at, digest, agreed) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![key, to_json(&answer.by)?, sql(answer.at), answer.digest, agreed],
            )?;
            Ok(())
        })
        .await
    }

    /// The answers, oldest first.
    pub(crate) async fn consents(&self, key: i64) -> Result<Vec<ConsentRow>, StoreError> {
        self.with(Mode::Read, move |tx| {
            let mut statement = tx.prepare(
                "SELECT by, at, digest, agreed FROM consents WHERE plugin = ?1 ORDER BY number",
            )?;
            let mut rows = statement.query([key])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let agreed: Option<String> = row.get(3)?;
                out.push(ConsentRow {
                    by: from_json(&row.get::<_, String>(0)?)?,
                    at: unsigned(row.get(1)?),
                    digest: row.get(2)?,
                    agreed: agreed.map(|text| from_json(&text)).transpose()?,
                });
            }
            Ok(out)
        })
        .await
    }

    /// Forgets a plugin with its grants and consents; its number stays taken. Says whether it was known.
    pub(crate) async fn forget(&self, id: PluginId) -> Result<bool, StoreError> {
        self.with(Mode::Durable, move |tx| {
            Ok(tx.execute("DELETE FROM plugins WHERE id = ?1", [id.as_str()])? > 0)
        })
        .await
    }

    /// Every known plugin, by id.
    pub(crate) async fn known(&self) -> Result<Vec<PluginRef>, StoreError> {
        self.with(Mode::Read, |tx| {
            let mut statement = tx.prepare("SELECT id, origin FROM plugins ORDER BY id")?;
            let mut rows = statement.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let id: String = row.get(0)?;
                let id = PluginId::parse(&id)
                    .map_err(|e| StoreError::Corrupt(format!("a plugin's id: {e}")))?;
                out.push(PluginRef { id, origin: from_json(&row.get::<_, String>(1)?)? });
            }
            Ok(out)
        })
        .await
    }
}

/// The number of this plugin from this origin. Once given it is never given to another, so that no
/// plugin finds files of another's user id.
fn slot(tx: &Transaction<'_>, id: &str, origin: &str) -> Result<u32, StoreError> {
    let had = tx
        .query_row("SELECT slot FROM slots WHERE id = ?1 AND origin = ?2", [id, origin], |r| {
            r.get::<_, u32>(0)
        })
        .optional()?;
    if let Some(slot) = had {
        return Ok(slot);
    }
    let next: i64 =
        tx.query_row("SELECT coalesce(max(slot) + 1, 0) FROM slots", [], |r| r.get(0))?;
    let slot = u32::try_from(next).ok().filter(|_| next < SLOTS).ok_or(StoreError::Full)?;
    tx.execute(
        "INSERT INTO slots (id, origin, slot) VALUES (?1, ?2, ?3)",
        params![id, origin, slot],
    )?;
    Ok(slot)
}

fn insert_grants(tx: &Transaction<'_>, key: i64, given: &[StoredGrant]) -> Result<(), StoreError> {
    tx.query_row("SELECT 1 FROM plugins WHERE key = ?1", [key], |_| Ok(()))
        .optional()?
        .ok_or(StoreError::Forgotten)?;
    for StoredGrant { grant, resolved } in given {
        tx.execute(
            "DELETE FROM grants WHERE plugin = ?1 AND digest <> ?2",
            params![key, grant.manifest_digest],
        )?;
        tx.execute(
            "INSERT OR REPLACE INTO grants (plugin, capability, resolved, by, at, until, digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                key,
                grant.capability.to_string(),
                resolved.to_string(),
                to_json(&grant.by)?,
                sql(grant.at),
                grant.until.map(sql),
                grant.manifest_digest,
            ],
        )?;
    }
    Ok(())
}

fn grants(tx: &Transaction<'_>, key: i64) -> Result<Vec<StoredGrant>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT capability, resolved, by, at, until, digest FROM grants WHERE plugin = ?1 ORDER BY capability",
    )?;
    let mut rows = statement.query([key])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let grant = Grant {
            capability: capability(&row.get::<_, String>(0)?)?,
            by: from_json(&row.get::<_, String>(2)?)?,
            at: unsigned(row.get(3)?),
            until: row.get::<_, Option<i64>>(4)?.map(unsigned),
            manifest_digest: row.get(5)?,
        };
        out.push(StoredGrant { grant, resolved: capability(&row.get::<_, String>(1)?)? });
    }
    Ok(out)
}

/// Runs `work` on a thread that may block.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Stopping.into()),
    }
}

fn capability(text: &str) -> Result<Capability, StoreError> {
    text.parse().map_err(|e| StoreError::Corrupt(format!("a granted capability: {e}")))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Corrupt(e.to_string()))
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Corrupt(format!("a stored value: {e}")))
}

/// SQLite integers are signed; times and counts beyond 2^63 do not occur.
fn sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
