//! What a commit of PostgreSQL's is worth. A charge is sent only after its commit: one that PostgreSQL may forget would be
//! charged, and stored nowhere.

use super::connect::Store;
use super::error::StoreError;
use super::row::ReadColumn;

/// How `synchronous_commit` is set for the worker's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A commit is answered when it is on disk here, or on a standby as well: a crash of the server loses none.
    OnDisk,
    /// A commit is answered before it is on disk: a crash loses the last ones.
    MayBeLost,
}

/// Asks how durable commits are.
///
/// # Errors
/// The database cannot be asked; or commits may be lost, and `may_lose_commits` does not say that this is meant.
pub async fn check(store: &Store, may_lose_commits: bool) -> Result<Durability, StoreError> {
    let client = store.client().await?;
    let set: String = client.query_one("SELECT current_setting('synchronous_commit')", &[]).await?.read(0)?;
    match set.as_str() {
        "off" if may_lose_commits => Ok(Durability::MayBeLost),
        "off" => Err(StoreError::NotDurable),
        _ => Ok(Durability::OnDisk),
    }
}
