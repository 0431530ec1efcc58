//! One plugin's file: its schema, and what is done to it within a transaction.
//!
//! Nothing about the file is kept in memory between transactions, so two hosts that share a state folder
//! (two commands at one time, say) may use it together.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{
    Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, config::DbConfig, params,
};

use super::error::{StorageError, sqlite};

/// What every entry counts against the quota besides its key and its value: about what SQLite needs for
/// a row and its place in the index.
pub const ENTRY_BYTES: u64 = 64;
/// Marks the file as ours (`PRAGMA application_id`): "PalS".
const APPLICATION_ID: i64 = 0x5061_6c53;
/// The format of the file (`PRAGMA user_version`).
const FORMAT: i64 = 1;
/// How long another process is waited for.
const BUSY: Duration = Duration::from_secs(5);
/// Most expired entries that one transaction removes on the side.
const SWEEP: u32 = 256;
/// Most bytes of a value that is read on the side.
const SMALL: i64 = 32 << 10;

const SCHEMA: &str = "
CREATE TABLE entries (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  value TEXT NOT NULL,
  version INTEGER NOT NULL,
  expires INTEGER
) STRICT;
CREATE INDEX entries_expires ON entries (expires) WHERE expires IS NOT NULL;
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
INSERT INTO state VALUES (1, 0, 0);
CREATE TABLE owner (plugin TEXT NOT NULL) STRICT;
";

/// An entry as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: String,
    /// JSON text; empty where values were not asked for.
    pub(super) value: String,
    pub(super) version: u64,
    /// Milliseconds since 1970.
    pub(super) expires: Option<u64>,
}

/// One change, or one precondition.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) key: String,
    pub(super) action: Action,
    /// The version that the entry must have for it; 0: there must be none.
    pub(super) version: Option<u64>,
}

impl Change {
    /// About how many bytes it writes.
    pub(super) fn size(&self) -> usize {
        let value = match &self.action {
            Action::Set { value, .. } => value.len(),
            Action::Delete | Action::Check => 0,
        };
        self.key.len() + value
    }
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Set {
        /// JSON text.
        value: String,
        /// Milliseconds since 1970.
        expires: Option<u64>,
    },
    Delete,
    /// Only the precondition counts.
    Check,
}

/// What became of changes that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// All were done. For each the version of its entry before and after; 0: there is none.
    Done(Vec<(u64, u64)>),
    /// None was done, since the precondition of this one did not hold: there is this version.
    Conflict { index: usize, version: u64 },
}

/// What a quick look finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Small {
    Found(Row),
    /// There is no such entry.
    Nothing,
    /// It takes longer: the value is large, or another process has the file.
    No,
}

/// An open file.
pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
}

/// The counters of the file during one transaction.
#[derive(Clone, Copy)]
struct State {
    version: u64,
    used: u64,
}

fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn to_u64(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode as Code;
    matches!(error.sqlite_error_code(), Some(Code::DatabaseBusy | Code::DatabaseLocked))
}

impl Database {
    /// Opens the file, or creates it for `plugin`.
    pub(super) fn open(path: &Path, plugin: &str) -> Result<Self, StorageError> {
        let until = Instant::now() + BUSY;
        loop {
            match Self::open_once(path, plugin) {
                // Changing to WAL does not wait for a process that does the same.
                Err(OpenError::Sqlite(e)) if is_busy(&e) && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(OpenError::Sqlite(e)) => return Err(sqlite(path, &e)),
                Err(OpenError::Other(e)) => return Err(e),
                Ok(database) => return Ok(database),
            }
        }
    }

    fn open_once(path: &Path, plugin: &str) -> Result<Self, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(32);
        // Plans do not depend on what is bound. Otherwise SQLite compiles a statement anew for each time
        // of day that `expires` is compared with.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // In WAL mode FULL syncs each commit: what was acknowledged survives a power failure.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
        let format: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0))?;
        if format == 0 {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // Another process may have been first.
            if tx.query_row("PRAGMA user_version", [], |r| r.get::<_, i64>(0))? == 0 {
                tx.execute_batch(SCHEMA)?;
                tx.execute("INSERT INTO owner VALUES (?1)", [plugin])?;
                tx.pragma_update(None, "application_id", APPLICATION_ID)?;
                tx.pragma_update(None, "user_version", FORMAT)?;
            }
            tx.commit()?;
        } else if format > FORMAT {
            let (path, found) = (path.to_owned(), format);
            return Err(OpenError::Other(StorageError::Newer { path, found, known: FORMAT }));
        }
        Ok(Self { connection, path: path.to_owned() })
    }

    fn error(&self, error: &rusqlite::Error) -> StorageError {
        sqlite(&self.path, error)
    }

    /// From now on reading waits for another process, should one repair the file.
    pub(super) fn wait_for_others(&self) {
        // Nothing but a number is set, which cannot fail.
        let _ = self.connection.busy_timeout(BUSY);
    }

    /// The entry, if there is one that has not expired.
    pub(super) fn get(&self, key: &str, now: u64) -> Result<Option<Row>, StorageError> {
        match self.get_up_to(i64::MAX, key, now).map_err(|e| self.error(&e))? {
            Small::Found(row) => Ok(Some(row)),
            Small::Nothing | Small::No => Ok(None),
        }
    }

    /// As [`Database::get`], where that is quickly done.
    pub(super) fn get_small(&self, key: &str, now: u64) -> Result<Small, StorageError> {
        let _ = self.connection.busy_timeout(Duration::ZERO);
        match self.get_up_to(SMALL, key, now) {
            Err(error) if is_busy(&error) => Ok(Small::No),
            found => found.map_err(|e| self.error(&e)),
        }
    }

    fn get_up_to(&self, most: i64, key: &str, now: u64) -> rusqlite::Result<Small> {
        // The length stands in the row's first page; what is longer is not read at all.
        let mut statement = self.connection.prepare_cached(
            "SELECT CASE WHEN octet_length(value) <= ?3 THEN value END, version, expires FROM entries
             WHERE key = ?1 AND (expires IS NULL OR expires > ?2)",
        )?;
        let mut rows = statement.query(params![key, to_i64(now), most])?;
        let Some(row) = rows.next()? else { return Ok(Small::Nothing) };
        let Some(value) = row.get(0)? else { return Ok(Small::No) };
        Ok(Small::Found(Row {
            key: key.to_owned(),
            value,
            version: to_u64(row.get(1)?),
            expires: row.get::<_, Option<i64>>(2)?.map(to_u64),
        }))
    }

    /// Entries of the range `(from, without from itself, before)` by key: at most `limit`, and no more
    /// once they have `bytes`. Whether there are more is said, too.
    pub(super) fn list(
        &self,
        (from, after, end): (&str, bool, Option<&str>),
        limit: usize,
        bytes: usize,
        values: bool,
        now: u64,
    ) -> Result<(Vec<Row>, bool), StorageError> {
        let sql = match values {
            true => {
                "SELECT key, value, version, expires FROM entries
                 WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) AND (expires IS NULL OR expires > ?3)
                 ORDER BY key"
            }
            false => {
                "SELECT key, '', version, expires FROM entries
                 WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) AND (expires IS NULL OR expires > ?3)
                 ORDER BY key"
            }
        };
        let read = || -> rusqlite::Result<(Vec<Row>, bool)> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let mut found = statement.query(params![from, end, to_i64(now)])?;
            let (mut rows, mut size) = (Vec::new(), 0);
            while let Some(r) = found.next()? {
                let key: String = r.get(0)?;
                if after && key == from {
                    continue;
                }
                let value: String = r.get(1)?;
                size += key.len() + value.len() + 64;
                if rows.len() >= limit || (size > bytes && !rows.is_empty()) {
                    return Ok((rows, true));
                }
                rows.push(Row {
                    key,
                    value,
                    version: to_u64(r.get(2)?),
                    expires: r.get::<_, Option<i64>>(3)?.map(to_u64),
                });
            }
            Ok((rows, false))
        };
        read().map_err(|e| self.error(&e))
    }

    /// Does groups of changes in one transaction; each group all or not at all, whatever becomes of the
    /// others. Only when this returns `Ok` is anything done.
    pub(super) fn apply<'g>(
        &mut self,
        groups: impl IntoIterator<Item = (&'g [Change], u64)>,
        now: u64,
    ) -> Result<Results, StorageError> {
        self.apply_within(BUSY, groups, now).map_err(|e| self.error(&e))
    }

    /// As [`Database::apply`]; `None`: another process is writing, and nothing was done.
    pub(super) fn apply_if_free<'g>(
        &mut self,
        groups: impl IntoIterator<Item = (&'g [Change], u64)>,
        now: u64,
    ) -> Result<Option<Results>, StorageError> {
        match self.apply_within(Duration::ZERO, groups, now) {
            Err(error) if is_busy(&error) => Ok(None),
            done => done.map(Some).map_err(|e| self.error(&e)),
        }
    }

    /// What fails has done nothing.
    fn apply_within<'g>(
        &mut self,
        wait: Duration,
        groups: impl IntoIterator<Item = (&'g [Change], u64)>,
        now: u64,
    ) -> rusqlite::Result<Results> {
        self.connection.busy_timeout(wait)?;
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let work = || -> rusqlite::Result<Results> {
            let mut state =
                tx.prepare_cached("SELECT version, used FROM state")?.query_row([], |r| {
                    Ok(State { version: to_u64(r.get(0)?), used: to_u64(r.get(1)?) })
                })?;
            let (version, used) = (state.version, state.used);
            sweep(&tx, &mut state, now, SWEEP)?;
            let mut results = Vec::new();
            for (changes, quota) in groups {
                results.push(group(&tx, &mut state, changes, quota, now)?);
            }
            if (version, used) != (state.version, state.used) {
                tx.prepare_cached("UPDATE state SET version = ?1, used = ?2")?
                    .execute(params![to_i64(state.version), to_i64(state.used)])?;
            }
            Ok(results)
        };
        let results = work()?;
        tx.commit()?;
        Ok(results)
    }

    /// Removes some of what has expired.
    pub(super) fn sweep(&mut self, now: u64) -> Result<(), StorageError> {
        self.apply([], now).map(|_| ())
    }
}

/// For each group what became of it.
type Results = Vec<Result<Applied, StorageError>>;

enum OpenError {
    Sqlite(rusqlite::Error),
    Other(StorageError),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Removes up to `most` expired entries; how many there were.
fn sweep(tx: &Connection, state: &mut State, now: u64, most: u32) -> rusqlite::Result<u32> {
    // Mostly there is nothing, and looking costs much less than deleting nothing.
    let any = tx
        .prepare_cached(
            "SELECT 1 FROM entries WHERE expires IS NOT NULL AND expires <= ?1 LIMIT 1",
        )?
        .exists([to_i64(now)])?;
    if !any {
        return Ok(0);
    }
    let mut delete = tx.prepare_cached(
        "DELETE FROM entries WHERE id IN
           (SELECT id FROM entries WHERE expires IS NOT NULL AND expires <= ?1 LIMIT ?2)
         RETURNING octet_length(key) + octet_length(value)",
    )?;
    let mut gone = delete.query(params![to_i64(now), most])?;
    let mut count = 0;
    while let Some(row) = gone.next()? {
        state.used = state.used.saturating_sub(to_u64(row.get(0)?) + ENTRY_BYTES);
        count += 1;
    }
    Ok(count)
}

/// Does one group, or takes it back. Where the quota is in the way, what has expired makes room first.
fn group(
    tx: &Connection,
    state: &mut State,
    changes: &[Change],
    quota: u64,
    now: u64,
) -> rusqlite::Result<Result<Applied, StorageError>> {
    let result = attempt(tx, state, changes, quota, now)?;
    if matches!(result, Err(StorageError::Quota { .. })) && sweep(tx, state, now, u32::MAX)? > 0 {
        return attempt(tx, state, changes, quota, now);
    }
    Ok(result)
}

fn attempt(
    tx: &Connection,
    state: &mut State,
    changes: &[Change],
    quota: u64,
    now: u64,
) -> rusqlite::Result<Result<Applied, StorageError>> {
    // A single change writes once everything holds; there is nothing to take back.
    let several = changes.len() > 1;
    let before = *state;
    if several {
        tx.prepare_cached("SAVEPOINT one")?.execute([])?;
    }
    let mut result = changes_of(tx, state, changes, quota, now)?;
    if let Ok(Applied::Done(_)) = &result
        && state.used > quota
        && state.used > before.used
    {
        result = Err(StorageError::Quota { wanted: state.used, quota });
    }
    let done = matches!(result, Ok(Applied::Done(_)));
    if !done {
        *state = before;
    }
    if several {
        if !done {
            tx.prepare_cached("ROLLBACK TO one")?.execute([])?;
        }
        tx.prepare_cached("RELEASE one")?.execute([])?;
    }
    Ok(result)
}

fn changes_of(
    tx: &Connection,
    state: &mut State,
    changes: &[Change],
    quota: u64,
    now: u64,
) -> rusqlite::Result<Result<Applied, StorageError>> {
    let single = changes.len() == 1;
    let mut versions = Vec::with_capacity(changes.len());
    for (index, change) in changes.iter().enumerate() {
        let found = tx
            .prepare_cached(
                "SELECT id, version, octet_length(value), expires FROM entries WHERE key = ?1",
            )?
            .query_row([&change.key], |r| {
                let expires: Option<i64> = r.get(3)?;
                let expired = expires.is_some_and(|at| to_u64(at) <= now);
                let version = if expired { 0 } else { to_u64(r.get(1)?) };
                Ok((r.get::<_, i64>(0)?, version, to_u64(r.get(2)?)))
            })
            .optional()?;
        let old = found.map_or(0, |(_, version, _)| version);
        if change.version.is_some_and(|wanted| wanted != old) {
            return Ok(Ok(Applied::Conflict { index, version: old }));
        }
        let key_bytes = u64::try_from(change.key.len()).unwrap_or(u64::MAX);
        let freed = found.map_or(0, |(_, _, value)| key_bytes + value + ENTRY_BYTES);
        let new = match &change.action {
            Action::Check => old,
            Action::Delete => {
                if let Some((id, ..)) = found {
                    tx.prepare_cached("DELETE FROM entries WHERE id = ?1")?.execute([id])?;
                    state.used = state.used.saturating_sub(freed);
                }
                0
            }
            Action::Set { value, expires } => {
                let taken =
                    key_bytes + u64::try_from(value.len()).unwrap_or(u64::MAX) + ENTRY_BYTES;
                let wanted = state.used.saturating_sub(freed).saturating_add(taken);
                if single && wanted > quota && wanted > state.used {
                    return Ok(Err(StorageError::Quota { wanted, quota }));
                }
                state.used = wanted;
                state.version += 1;
                let (version, expires) = (to_i64(state.version), expires.map(to_i64));
                match found {
                    Some((id, ..)) => tx
                        .prepare_cached(
                            "UPDATE entries SET value = ?2, version = ?3, expires = ?4 WHERE id = ?1",
                        )?
                        .execute(params![id, value, version, expires])?,
                    None => tx
                        .prepare_cached(
                            "INSERT INTO entries (key, value, version, expires) VALUES (?1, ?2, ?3, ?4)",
                        )?
                        .execute(params![change.key, value, version, expires])?,
                };
                state.version
            }
        };
        versions.push((old, new));
    }
    Ok(Ok(Applied::Done(versions)))
}
