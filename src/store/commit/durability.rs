//! How durable PostgreSQL's commits are. A charge is sent only after its commit: if PostgreSQL then lost that commit,
//! the charge would be stored nowhere.

use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;

/// What `synchronous_commit` promises on the worker's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A commit is acknowledged when it is on disk here, or on a standby as well: a server crash loses none.
    OnDisk,
    /// A commit is acknowledged before it is on disk: a crash loses the last ones.
    MayBeLost,
}

/// Checks how durable commits are.
///
/// # Errors
/// The database query fails; or commits may be lost, and `may_lose_commits` does not allow that.
pub async fn check(store: &Store, may_lose_commits: bool) -> Result<Durability, StoreError> {
    let client = store.client().await?;
    let set: String = client.query_one("SELECT current_setting('synchronous_commit')", &[]).await?.read(0)?;
    match set.as_str() {
        "off" if may_lose_commits => Ok(Durability::MayBeLost),
        "off" => Err(StoreError::NotDurable),
        _ => Ok(Durability::OnDisk),
    }
}

/// Checks the standbys, and returns a warning if a failover to one would lose commits, or if commits wait for one and
/// none is attached; `None` if there is nothing to warn about. Standbys are not visible where the storage itself is
/// mirrored, as in some clouds.
///
/// # Errors
/// The database query fails.
pub async fn standbys(store: &Store) -> Result<Option<&'static str>, StoreError> {
    // Any role may count WAL receivers, but not see what they are: subscribers of logical replication are known by
    // their slots.
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
        // Without any standby, all but "off" mean the same.
        ("off", ..) | (_, false, false) => None,
        (_, false, true) => Some(
            "a standby is attached, but no commit waits for it (synchronous_standby_names is empty): a failover loses \
             the last commits",
        ),
        ("local", true, _) => {
            Some("synchronous_commit is \"local\": no commit waits for a standby, so a failover loses the last commits")
        }
        (_, true, false) => Some(
            "commits wait for a standby (synchronous_standby_names), but none is attached: nothing can be stored until \
             one is back",
        ),
        ("remote_write", true, true) => Some(
            "synchronous_commit is \"remote_write\": commits wait only until a standby has them in memory; if it \
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
        // Refused, or reported as intended, elsewhere.
        check("off", true, true, "");
    }
}
