//! What keeps two from talking to each other: names, certificates, proxies, told as such.

use crate::store::{Meaning, StoreError};
use url::Url;

/// The variables that send requests through a proxy. Read where the SDK reads them: nobody else needs them.
const PROXIES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What to do about a failed request to the store, for which `permission` is needed.
pub fn fix(error: &StoreError, text: &str, permission: &str) -> String {
    match error.meaning() {
        Meaning::Credentials => format!(
            "allow {permission} on this bucket and prefix, or correct the credentials: `kubectl ark install --storage URL \
             --credentials-file FILE`"
        ),
        Meaning::Untrusted => "trust its authority: put it into a ConfigMap under ca.crt and name that in the location's \
             spec.caConfigMap"
            .to_owned(),
        Meaning::Unreachable => unreachable(text, proxy(|name| std::env::var(name).ok())),
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
fn proxy(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    PROXIES.iter().find_map(|name| {
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
            proxy(variable("http://me:hush@proxy.local:3128")).as_deref(),
            Some("the proxy proxy.local:3128 of HTTPS_PROXY")
        );
        assert_eq!(
            proxy(variable("me:hush@proxy")).as_deref(),
            Some("the proxy of HTTPS_PROXY")
        );
        assert_eq!(proxy(variable("")), None);
    }

    #[test]
    fn a_name_that_is_not_known_is_told_from_a_host_that_does_not_answer() {
        assert!(unreachable("dns error: failed to lookup address", None).contains("DNS"));
        assert!(unreachable("connection refused", None).contains("HTTPS_PROXY"));
        assert!(unreachable("dns error", Some("the proxy p".into())).contains("the proxy p"));
    }
}
