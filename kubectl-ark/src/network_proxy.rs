//! Which proxy leads to the API server, by the rules of Go's `http.ProxyFromEnvironment`, which are kubectl's.
//!
//! kube's own rules compare NO_PROXY with the proxy's address, not with the server's, and send a loopback address to the proxy.

use std::net::IpAddr;

/// The variables of the environment that name proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyVariables {
    /// HTTP_PROXY, else http_proxy.
    pub http: Option<String>,
    /// HTTPS_PROXY, else https_proxy.
    pub https: Option<String>,
    /// NO_PROXY, else no_proxy.
    pub none: Option<String>,
}

impl ProxyVariables {
    /// Those of this process.
    pub fn from_environment() -> Self {
        let of = |name: &str| {
            [name.to_owned(), name.to_lowercase()]
                .iter()
                .filter_map(|name| std::env::var(name).ok())
                .find(|value| !value.is_empty())
        };
        ProxyVariables {
            http: of("HTTP_PROXY"),
            https: of("HTTPS_PROXY"),
            none: of("NO_PROXY"),
        }
    }

    /// The proxy for a server, as a URL.
    pub fn proxy_of(&self, server: &http::Uri) -> Option<String> {
        let secure = server.scheme_str() == Some("https");
        let proxy = if secure { &self.https } else { &self.http };
        let proxy = proxy.as_deref()?;
        let host = server.host()?.trim_matches(['[', ']']);
        let port = server.port_u16().unwrap_or(if secure { 443 } else { 80 });
        if is_local(host) || self.excepts(host, port) {
            return None;
        }
        Some(if proxy.contains("://") {
            proxy.to_owned()
        } else {
            format!("http://{proxy}")
        })
    }

    fn excepts(&self, host: &str, port: u16) -> bool {
        let entries = self.none.as_deref().unwrap_or_default().split(',');
        entries
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .any(|entry| matches(&entry.to_lowercase(), &host.to_lowercase(), port))
    }
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Whether an entry of NO_PROXY means this host: `*`, an address, a network, a name with what is under it, with or without a port.
fn matches(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let address = host.parse::<IpAddr>().ok();
    if let Some((network, bits)) = entry.split_once('/')
        && let (Ok(network), Ok(bits)) = (network.parse(), bits.parse())
    {
        return address.is_some_and(|address| contains(network, bits, address));
    }
    if let Ok(entry) = entry.trim_matches(['[', ']']).parse::<IpAddr>() {
        return address == Some(entry);
    }
    let entry = match entry.rsplit_once(':') {
        Some((name, number)) => match number.parse::<u16>() {
            Ok(number) if number != port => return false,
            Ok(_) => name.trim_matches(['[', ']']),
            Err(_) => entry,
        },
        None => entry,
    };
    if let Ok(entry) = entry.parse::<IpAddr>() {
        return address == Some(entry);
    }
    let under = |name: &str| {
        host.strip_suffix(name)
            .is_some_and(|rest| rest.ends_with('.'))
    };
    match entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.')) {
        Some(name) => under(name),
        None => host == entry || under(entry),
    }
}

fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let equal = |one: u128, other: u128, width: u32| {
        bits == 0 || (bits <= width && (one ^ other) >> (width - bits) == 0)
    };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            equal(u32::from(network).into(), u32::from(address).into(), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => equal(network.into(), address.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(server: &str, none: &str) -> Option<String> {
        let variables = ProxyVariables {
            http: Some("http://plain:1".to_owned()),
            https: Some("secure:2".to_owned()),
            none: Some(none.to_owned()),
        };
        variables.proxy_of(&server.parse().unwrap())
    }

    #[test]
    fn the_scheme_of_the_server_chooses_the_variable() {
        assert_eq!(
            proxy("https://k.example", "").as_deref(),
            Some("http://secure:2")
        );
        assert_eq!(
            proxy("http://k.example", "").as_deref(),
            Some("http://plain:1")
        );
        let none = ProxyVariables::default();
        assert_eq!(none.proxy_of(&"https://k.example".parse().unwrap()), None);
    }

    #[test]
    fn no_proxy_names_hosts_networks_and_ports() {
        for (server, none) in [
            ("https://localhost:6443", ""),
            ("https://127.0.0.1:6443", ""),
            ("https://[::1]:6443", ""),
            ("https://k.example", "*"),
            ("https://k.example", "other, K.example"),
            ("https://api.k.example", "k.example"),
            ("https://api.k.example", ".k.example"),
            ("https://api.k.example", "*.k.example"),
            ("https://k.example:6443", "k.example:6443"),
            ("https://10.1.2.3", "10.0.0.0/8"),
            ("https://10.1.2.3", "10.1.2.3"),
            ("https://10.1.2.3:6443", "10.1.2.3:6443"),
            ("https://[fd00::1]", "fd00::/8"),
        ] {
            assert_eq!(proxy(server, none), None, "{server} {none}");
        }
        for (server, none) in [
            ("https://k.example", "example.com, xk.example"),
            ("https://k.example", ".k.example"),
            ("https://xk.example", "k.example"),
            ("https://k.example:6443", "k.example:443"),
            ("https://11.1.2.3", "10.0.0.0/8"),
            ("https://10.1.2.3", "10.1.2.4"),
            ("https://10.1.2.3", "fd00::/8"),
        ] {
            assert!(proxy(server, none).is_some(), "{server} {none}");
        }
    }
}
