//! Splits addresses that name several hosts, `scheme://user:password@a:1,b:2/path`: the nodes of a broker cluster, or a
//! database and its standbys. Also checks whether a host is this machine.

use std::net::IpAddr;

use uuid::Uuid;

/// Returns one address per host of `url`, in order; `url` itself if it names one host, or if its hosts cannot be told
/// apart from the rest.
pub fn each(url: &str) -> Vec<String> {
    split(url).unwrap_or_else(|| vec![url.to_owned()])
}

fn split(url: &str) -> Option<Vec<String>> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    // A password that was not encoded may contain commas and characters that end the list of hosts.
    if path.contains('@') || hosts.split(',').any(str::is_empty) {
        return None;
    }
    Some(hosts.split(',').map(|host| format!("{scheme}://{user}{host}{path}")).collect())
}

/// Returns whether a host is this machine, so that traffic to it crosses no network.
pub fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Shuffles the hosts: if every client started with the first one, that host would carry the whole load.
pub fn shuffled<T>(mut all: Vec<T>) -> Vec<T> {
    all.sort_by_cached_key(|_| Uuid::new_v4());
    all
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_host_has_what_they_share() {
        let check = |url: &str, expected: &[&str]| assert_eq!(each(url), expected, "{url}");
        let hosts = ["amqp://u:p@a:1/v?heartbeat=5", "amqp://u:p@b:2/v?heartbeat=5", "amqp://u:p@c/v?heartbeat=5"];
        check("amqp://u:p@a:1,b:2,c/v?heartbeat=5", &hosts);
        check("amqps://[fd00::1]:5671,[fd00::2]", &["amqps://[fd00::1]:5671", "amqps://[fd00::2]"]);
        check("postgres://u@a,b?user=v", &["postgres://u@a?user=v", "postgres://u@b?user=v"]);
        check("postgres://u:p,w@a/db", &["postgres://u:p,w@a/db"]);
    }

    #[test]
    fn an_ambiguous_address_stays_whole() {
        for url in ["amqp://a,,b/", "amqp://a,/", "amqp://u@/v", "postgres://u:p,q/w@a/db", "host=a,b", ""] {
            assert_eq!(each(url), [url]);
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "::1", "[::1]", "::ffff:127.0.0.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "localhost.example", "127.0.0.1.example", "127.1", "10.0.0.1", "0.0.0.0", "::", "fd00::1", "[::1"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn nobody_always_begins_at_the_same_host() {
        let begins: HashSet<u8> = (0..1000).map(|_| shuffled(vec![1, 2, 3])[0]).collect();
        assert_eq!(begins.len(), 3);
        let mut all = shuffled(vec![1, 2, 3]);
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
    }
}
