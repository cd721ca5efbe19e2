//! What keeps two from talking to each other: names, certificates, proxies, told as such.

use crate::store::{Meaning, StoreError};
use url::Url;

/// The variables that send requests over TLS through a proxy. Read where the SDK reads them: nobody else needs them.
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// And those without TLS.
const PLAIN_PROXIES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// What to do about a failed request to the store, for which `permission` is needed.
pub fn fix(error: &StoreError, text: &str, permission: &str) -> String {
    match error.meaning() {
        Meaning::Credentials if text.contains("RequestTimeTooSkewed") => {
            "set the clocks: run chrony or ntpd on the node, or on the store's hosts".to_owned()
        }
        Meaning::Credentials => format!(
            "allow {permission} on this bucket and prefix, or correct the credentials: `kubectl ark install --storage URL \
             --credentials-file FILE`"
        ),
        Meaning::Untrusted => "trust its authority: put it into a ConfigMap under ca.crt and name that in the location's \
             spec.caConfigMap"
            .to_owned(),
        Meaning::Unreachable => {
            let names = match text.contains(" http://") {
                true => &PLAIN_PROXIES,
                false => &PROXIES,
            };
            unreachable(text, proxy(names, |name| std::env::var(name).ok()))
        }
        _ => error
            .hint()
            .unwrap_or_else(|| "see docs/doctor.md, and the log of the store".to_owned()),
    }
}

/// What to do when nobody answers.
fn unreachable(text: &str, proxy: Option<String>) -> String {
    let lower = text.to_lowercase();
    let unknown_name = ["dns error", "lookup address", "name or service not known"]
        .iter()
        .any(|words| lower.contains(words));
    match (unknown_name, proxy) {
        (true, None) => "the name is not known here: correct the endpoint, or the cluster's DNS (`kubectl -n kube-system get \
             pods -l k8s-app=kube-dns`)"
            .to_owned(),
        (_, Some(proxy)) => format!(
            "requests go through {proxy}: it must be up and let them pass, or exempt the store: `kubectl ark install --env \
             NO_PROXY=HOST`"
        ),
        (false, None) => "check the endpoint, network policies and firewalls between pods and the store; behind a proxy: \
             `kubectl ark install --env HTTPS_PROXY=http://PROXY:PORT`"
            .to_owned(),
    }
}

/// The first proxy that is set, without what it is told of who we are.
fn proxy(names: &[&str], variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    names.iter().find_map(|name| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        let host = Url::parse(&value).ok().and_then(|url| {
            let host = url.host_str()?.to_owned();
            Some(match url.port_or_known_default() {
                Some(port) => format!("{host}:{port}"),
                None => host,
            })
        });
        Some(match host {
            Some(host) => format!("the proxy {host} of {name}"),
            None => format!("the proxy of {name}"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_without_its_password() {
        let variable = |value: &'static str| {
            move |name: &str| (name == "HTTPS_PROXY").then(|| value.to_owned())
        };
        assert_eq!(
            proxy(&PROXIES, variable("http://me:hush@proxy.local:3128")).as_deref(),
            Some("the proxy proxy.local:3128 of HTTPS_PROXY")
        );
        assert_eq!(
            proxy(&PROXIES, variable("me:hush@proxy")).as_deref(),
            Some("the proxy of HTTPS_PROXY")
        );
        assert_eq!(proxy(&PROXIES, variable("")), None);
        // Of an endpoint without TLS, it is not the proxy.
        assert_eq!(proxy(&PLAIN_PROXIES, variable("http://proxy")), None);
    }

    #[test]
    fn a_name_that_is_not_known_is_told_from_a_host_that_does_not_answer() {
        assert!(unreachable("dns error: failed to lookup address", None).contains("DNS"));
        assert!(unreachable("connection refused", None).contains("HTTPS_PROXY"));
        assert!(unreachable("dns error", Some("the proxy p".into())).contains("the proxy p"));
    }
}
