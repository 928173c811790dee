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

/// Looks at standbys: what a failover to one would cost, or that none is there to wait for. `None` where nothing is to be
/// warned of. Standbys are not seen where the storage itself is mirrored, as in some clouds.
///
/// # Errors
/// The database cannot be asked.
pub async fn standbys(store: &Store) -> Result<Option<&'static str>, StoreError> {
    // Any role may count who streams WAL, but not see as what: subscribers of logical replication stand beside their slots.
    let sql = "SELECT current_setting('synchronous_commit'), current_setting('synchronous_standby_names') <> '',
            EXISTS (SELECT FROM pg_stat_replication r WHERE r.state IS DISTINCT FROM 'backup' AND NOT EXISTS (
                SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical'))";
    let client = store.client().await?;
    let row = client.query_one(sql, &[]).await?;
    let commit: String = row.read(0)?;
    Ok(warning(&commit, row.read(1)?, row.read(2)?))
}

/// `named`: synchronous standbys are configured; `attached`: some standby is connected.
fn warning(commit: &str, named: bool, attached: bool) -> Option<&'static str> {
    match (commit, named, attached) {
        // Without any standby all but "off" mean the same.
        ("off", ..) | (_, false, false) => None,
        (_, false, true) => Some(
            "a standby is attached, and no commit waits for it (synchronous_standby_names is empty): a failover loses \
             the last commits",
        ),
        ("local", true, _) => Some(
            "synchronous_commit is \"local\": no commit waits for a standby, and a failover loses the last commits",
        ),
        (_, true, false) => Some(
            "commits wait for a standby (synchronous_standby_names), and none is attached: nothing can be stored until \
             one is back",
        ),
        ("remote_write", true, true) => Some(
            "synchronous_commit is \"remote_write\": commits wait until a standby has them in memory; if its machine \
             crashes together with the primary, a failover loses the last commits",
        ),
        (_, true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_that_loses_commits_is_warned_of() {
        let check = |commit: &str, named, attached, words: &str| {
            let found = warning(commit, named, attached).unwrap_or_default();
            assert!(found.contains(words), "{commit} {named} {attached}: {found}");
            assert_eq!(found.is_empty(), words.is_empty(), "{commit} {named} {attached}: {found}");
        };
        for commit in ["on", "local", "remote_write", "remote_apply"] {
            check(commit, false, false, "");
            check(commit, false, true, "no commit waits for it");
        }
        for commit in ["on", "remote_apply"] {
            check(commit, true, true, "");
        }
        for commit in ["on", "remote_write", "remote_apply"] {
            check(commit, true, false, "none is attached");
        }
        check("remote_write", true, true, "in memory");
        check("local", true, true, "\"local\"");
        check("local", true, false, "\"local\"");
        // That is refused, or said to be meant, elsewhere.
        check("off", true, true, "");
    }
}
