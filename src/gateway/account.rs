//! Names of an account at a gateway. They are stored with payments and displayed.

use super::client::BuildError;

const CHARACTERS_MAX: usize = 255;

/// Validates the keys `account` and `account_aliases`.
///
/// # Errors
/// Names the key whose value cannot be stored.
pub(super) fn check(account: Option<&str>, aliases: &[String]) -> Result<(), BuildError> {
    let wrong = |key, wrong| Err(BuildError::Setting { key, wrong });
    if !account.is_none_or(is_name) {
        return wrong("account", "must have 1 to 255 characters and no control characters");
    }
    if !aliases.iter().all(|alias| is_name(alias)) {
        return wrong("account_aliases", "must be names of 1 to 255 characters without control characters");
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=CHARACTERS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_stored_is_refused_by_its_key() {
        let checked = |account: Option<&str>, alias: &str| check(account, &[alias.to_owned()]);
        let longest = "x".repeat(CHARACTERS_MAX);
        for account in [None, Some("acct_1"), Some("https://gateway.example live"), Some(longest.as_str())] {
            assert!(checked(account, "acct_0").is_ok(), "{account:?}");
        }
        let longer = "x".repeat(CHARACTERS_MAX + 1);
        for name in ["", "a\0b", "a\nb", longer.as_str()] {
            let error = checked(Some(name), "acct_0").unwrap_err().to_string();
            assert!(error.starts_with("account: "), "{name:?}: {error}");
            let error = checked(None, name).unwrap_err().to_string();
            assert!(error.starts_with("account_aliases: "), "{name:?}: {error}");
        }
    }
}
