//! Rows that are made several at a time.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::JoinHandle};

use crate::{
    record::Row,
    trouble::{Result, Trouble},
};

/// Rows in the making.
pub struct Turns {
    places: Arc<Semaphore>,
    rows: Vec<JoinHandle<Result<Row>>>,
}

impl Turns {
    /// So many at once.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(at_once)), rows: Vec::new() }
    }

    /// Makes a row when its turn comes.
    pub fn take(&mut self, row: impl Future<Output = Result<Row>> + Send + 'static) {
        let places = Arc::clone(&self.places);
        self.rows.push(tokio::spawn(async move {
            let _place = places.acquire_owned().await.map_err(|e| Trouble(e.to_string()))?;
            row.await
        }));
    }

    /// All of them, in the order in which they were given.
    ///
    /// # Errors
    /// With the first that could not be made.
    pub async fn rows(self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for row in self.rows {
            rows.push(row.await.map_err(|e| Trouble(e.to_string()))??);
        }
        Ok(rows)
    }
}
