//! The brokers in `amqp.url`: one host, or the nodes of a cluster, `amqp://user:password@a:5672,b:5672/vhost`.

use lapin::uri::AMQPUri;

use crate::hosts;

/// Returns one address per host; `None` if the text is not such an address.
pub(crate) fn addresses(url: &str) -> Option<Vec<AMQPUri>> {
    hosts::each(url).iter().map(|url| address(url)).collect()
}

fn address(url: &str) -> Option<AMQPUri> {
    let mut uri: AMQPUri = url.parse().ok()?;
    if let Some(host) = ipv6_host(url) {
        uri.authority.host = host.to_owned();
    }
    // Several hosts that could not be told apart.
    (!uri.authority.host.contains(',')).then_some(uri)
}

/// Returns the host of `amqp://user:password@[::1]:5672/`: lapin takes every host in brackets for "localhost".
fn ipv6_host(text: &str) -> Option<&str> {
    let authority = text.split_once("://")?.1.split('/').next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(host.strip_prefix('[')?.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_one_host_or_several() {
        let check = |url: &str, expected: &[(&str, u16)]| {
            let addresses = addresses(url).unwrap_or_else(|| panic!("{url} is an address"));
            let hosts: Vec<(&str, u16)> =
                addresses.iter().map(|uri| (uri.authority.host.as_str(), uri.authority.port)).collect();
            assert_eq!(hosts, expected, "{url}");
            assert!(addresses.iter().all(|uri| uri.vhost == addresses[0].vhost), "{url}");
            assert!(addresses.iter().all(|uri| uri.authority.userinfo == addresses[0].authority.userinfo), "{url}");
        };
        check("amqp://guest:guest@127.0.0.1:5673/%2f", &[("127.0.0.1", 5673)]);
        check("amqp://guest:guest@[::1]:5673/%2f", &[("::1", 5673)]);
        check("amqp://u:p,w@a:1,b,[fd00::5]:3/pay?heartbeat=5", &[("a", 1), ("b", 5672), ("fd00::5", 3)]);
        check("amqps://a,b", &[("a", 5671), ("b", 5671)]);
    }

    #[test]
    fn what_names_no_hosts_is_no_address() {
        for url in ["amqp://a,,b/", "amqp://a:1,/", "amqp://a:x,b/", "amqp://a,b/v@w", "http://a,b/", "a,b"] {
            assert_eq!(addresses(url), None, "{url}");
        }
    }
}
