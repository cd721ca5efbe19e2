//! Which cluster, and who one is there: reads kubeconfig files and applies flags, by kubectl's rules. Sends no request.
//!
//! kube's own reader fails on a file of `KUBECONFIG` that is not there, where kubectl goes on with the others.

use crate::cli::ClusterFlags;
use ark_job::error::{Failure, chain};
use ark_job::exit::Exit;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What one context says, with the flags that override it.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// What the kubeconfig calls the cluster.
    pub cluster_name: Option<String>,
    /// What the kubeconfig calls the user.
    pub user_name: Option<String>,
    /// The cluster.
    pub cluster: Cluster,
    /// Who one is.
    pub user: AuthInfo,
}

/// The files that are asked, in order: `--kubeconfig`, else those of `KUBECONFIG`, else `~/.kube/config`.
pub fn files(
    flag: Option<&Path>,
    environment: Option<&OsStr>,
    home: Option<&Path>,
) -> (Vec<PathBuf>, Missing) {
    if let Some(flag) = flag {
        return (vec![flag.to_owned()], Missing::IsAnError);
    }
    let listed: Vec<PathBuf> = environment
        .map(std::env::split_paths)
        .into_iter()
        .flatten()
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if !listed.is_empty() {
        return (listed, Missing::IsSkipped);
    }
    let usual = home.map(|home| home.join(".kube").join("config"));
    (usual.into_iter().collect(), Missing::IsSkipped)
}

/// What a file means that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// As if it were empty.
    IsSkipped,
    /// Somebody has asked for just this one.
    IsAnError,
}

/// All files in one; of two entries of the same name the first counts.
///
/// # Errors
/// When one of them cannot be read or understood: the cluster of another file is not the one that was meant.
pub fn read(files: &[PathBuf], missing: Missing) -> Result<Kubeconfig, Failure> {
    let mut merged = Kubeconfig::default();
    for file in files {
        if missing == Missing::IsSkipped && !file.exists() {
            continue;
        }
        merged = Kubeconfig::read_from(file)
            .and_then(|one| merged.merge(one))
            .map_err(|error| {
                no_cluster(&format!("reading {}: {}", file.display(), chain(&error)))
            })?;
    }
    Ok(merged)
}

/// Whether nothing in it says which cluster: in a pod, it is the pod's own then.
pub fn is_empty(kubeconfig: &Kubeconfig) -> bool {
    let Kubeconfig {
        clusters,
        auth_infos,
        contexts,
        current_context,
        ..
    } = kubeconfig;
    clusters.is_empty()
        && auth_infos.is_empty()
        && contexts.is_empty()
        && current_context.as_deref().unwrap_or_default().is_empty()
}

/// The context's cluster and user, or those that flags name, with what flags override in them.
///
/// # Errors
/// When a context, cluster or user of that name is not there, or none is named at all.
pub fn choose(kubeconfig: &Kubeconfig, flags: &ClusterFlags) -> Result<Chosen, Failure> {
    let connection = &flags.connection;
    let named = flags
        .context
        .as_deref()
        .or(kubeconfig.current_context.as_deref())
        .filter(|name| !name.is_empty());
    let context = named
        .map(|name| {
            let found = kubeconfig.contexts.iter().find(|one| one.name == name);
            found
                .and_then(|found| found.context.clone())
                .ok_or_else(|| {
                    absent(
                        "context",
                        name,
                        kubeconfig.contexts.iter().map(|one| &one.name),
                    )
                })
        })
        .transpose()?;
    let cluster_name = connection
        .cluster
        .clone()
        .or(context.as_ref().map(|context| context.cluster.clone()));
    let user_name = connection
        .user
        .clone()
        .or(context.and_then(|context| context.user))
        .filter(|name| !name.is_empty());
    let cluster = match &cluster_name {
        Some(name) => {
            let found = kubeconfig.clusters.iter().find(|one| one.name == *name);
            found
                .and_then(|found| found.cluster.clone())
                .ok_or_else(|| {
                    absent(
                        "cluster",
                        name,
                        kubeconfig.clusters.iter().map(|one| &one.name),
                    )
                })?
        }
        None if connection.server.is_some() => Cluster::default(),
        None => {
            return Err(no_cluster("the kubeconfig names no current context"));
        }
    };
    let user = match &user_name {
        Some(name) => {
            let found = kubeconfig.auth_infos.iter().find(|one| one.name == *name);
            match found {
                Some(found) => found.auth_info.clone().unwrap_or_default(),
                // As kubectl: a context may name a user that is not there, a flag may not.
                None if connection.user.is_none() => AuthInfo::default(),
                None => {
                    return Err(absent(
                        "user",
                        name,
                        kubeconfig.auth_infos.iter().map(|one| &one.name),
                    ));
                }
            }
        }
        None => AuthInfo::default(),
    };
    Ok(overridden(
        Chosen {
            cluster_name,
            user_name,
            cluster,
            user,
        },
        flags,
    ))
}

fn overridden(mut chosen: Chosen, flags: &ClusterFlags) -> Chosen {
    let crate::cli::ConnectionFlags {
        cluster: _,
        user: _,
        server,
        token,
        impersonate,
        impersonate_groups,
        impersonate_uid,
        certificate_authority,
        client_certificate,
        client_key,
        tls_server_name,
        insecure_skip_tls_verify,
        request_timeout: _,
    } = &flags.connection;
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let (cluster, user) = (&mut chosen.cluster, &mut chosen.user);
    if let Some(server) = server {
        cluster.server = Some(server.clone());
    }
    if let Some(file) = certificate_authority {
        cluster.certificate_authority = Some(text(file));
        cluster.certificate_authority_data = None;
    }
    if let Some(name) = tls_server_name {
        cluster.tls_server_name = Some(name.clone());
    }
    if *insecure_skip_tls_verify {
        cluster.insecure_skip_tls_verify = Some(true);
        cluster.certificate_authority = None;
        cluster.certificate_authority_data = None;
    }
    if let Some(token) = token {
        user.token = Some(token.clone().into());
        user.token_file = None;
        user.exec = None;
        user.auth_provider = None;
    }
    if let Some(file) = client_certificate {
        user.client_certificate = Some(text(file));
        user.client_certificate_data = None;
    }
    if let Some(file) = client_key {
        user.client_key = Some(text(file));
        user.client_key_data = None;
    }
    if let Some(name) = impersonate {
        user.impersonate = Some(name.clone());
    }
    if !impersonate_groups.is_empty() {
        user.impersonate_groups = Some(impersonate_groups.clone());
    }
    if let Some(uid) = impersonate_uid {
        user.impersonate_uid = Some(uid.clone());
    }
    chosen
}

/// There is no cluster to talk to, and why.
pub fn no_cluster(why: &str) -> Failure {
    Failure::new(Exit::Failed, format!("no cluster: {why}")).hint(
        "set KUBECONFIG, or choose with --kubeconfig and --context; `kubectl cluster-info` shows whether it works",
    )
}

fn absent<'a>(what: &str, name: &str, there: impl Iterator<Item = &'a String>) -> Failure {
    let there: Vec<&str> = there.map(String::as_str).collect();
    let there = if there.is_empty() {
        "there are none".to_owned()
    } else {
        format!("there are: {}", there.join(", "))
    };
    no_cluster(&format!("the kubeconfig has no {what} {name} ({there})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ConnectionFlags;

    fn kubeconfig() -> Kubeconfig {
        Kubeconfig::from_yaml(
            "current-context: first
contexts:
- {name: first, context: {cluster: one, user: me}}
- {name: second, context: {cluster: two, user: nobody, namespace: elsewhere}}
clusters:
- {name: one, cluster: {server: 'https://one', certificate-authority-data: AAAA}}
- {name: two, cluster: {server: 'https://two'}}
users:
- {name: me, user: {exec: {command: log-in}}}
- {name: you, user: {token: yours}}
",
        )
        .unwrap()
    }

    fn flags(context: Option<&str>, connection: ConnectionFlags) -> ClusterFlags {
        ClusterFlags {
            context: context.map(str::to_owned),
            connection,
            ..ClusterFlags::default()
        }
    }

    #[test]
    fn a_flag_wins_over_the_context_and_the_context_over_nothing() {
        let chosen = |context, connection| choose(&kubeconfig(), &flags(context, connection));
        let first = chosen(None, ConnectionFlags::default()).unwrap();
        assert_eq!(first.cluster.server.as_deref(), Some("https://one"));
        assert_eq!(first.cluster_name.as_deref(), Some("one"));
        assert!(first.user.exec.is_some());
        let second = chosen(Some("second"), ConnectionFlags::default()).unwrap();
        assert_eq!(second.cluster.server.as_deref(), Some("https://two"));
        assert!(
            second.user.token.is_none(),
            "a user that is not there is nobody"
        );

        let other = ConnectionFlags {
            cluster: Some("two".to_owned()),
            user: Some("you".to_owned()),
            ..ConnectionFlags::default()
        };
        let other = chosen(None, other).unwrap();
        assert_eq!(other.cluster.server.as_deref(), Some("https://two"));
        assert!(other.user.token.is_some() && other.user.exec.is_none());

        let token = ConnectionFlags {
            token: Some("t".to_owned()),
            insecure_skip_tls_verify: true,
            impersonate: Some("jane".to_owned()),
            ..ConnectionFlags::default()
        };
        let token = chosen(None, token).unwrap();
        assert!(
            token.user.exec.is_none(),
            "a token makes the plugin needless"
        );
        assert_eq!(token.cluster.certificate_authority_data, None);
        assert_eq!(token.user.impersonate.as_deref(), Some("jane"));
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let message = |context, connection| {
            let failure = choose(&kubeconfig(), &flags(context, connection)).unwrap_err();
            failure.message().to_owned()
        };
        assert_eq!(
            message(Some("third"), ConnectionFlags::default()),
            "no cluster: the kubeconfig has no context third (there are: first, second)"
        );
        let user = ConnectionFlags {
            user: Some("she".to_owned()),
            ..ConnectionFlags::default()
        };
        assert_eq!(
            message(None, user),
            "no cluster: the kubeconfig has no user she (there are: me, you)"
        );
        assert!(
            choose(
                &Kubeconfig::default(),
                &flags(None, ConnectionFlags::default())
            )
            .is_err()
        );
    }

    #[test]
    fn files_are_those_of_the_flag_then_the_environment_then_home() {
        let both = std::env::join_paths(["a", "", "b"]).unwrap();
        let (flag, home) = (Path::new("f"), Path::new("h"));
        assert_eq!(
            files(Some(flag), Some(&both), Some(home)),
            (vec!["f".into()], Missing::IsAnError)
        );
        assert_eq!(
            files(None, Some(&both), Some(home)),
            (vec!["a".into(), "b".into()], Missing::IsSkipped)
        );
        let usual = home.join(".kube").join("config");
        assert_eq!(
            files(None, Some(OsStr::new("")), Some(home)),
            (vec![usual], Missing::IsSkipped)
        );
    }

    #[test]
    fn a_missing_file_is_skipped_and_the_first_of_two_entries_counts() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let first = write(
            "first",
            "contexts: [{name: c, context: {cluster: one, user: me}}]\nclusters: [{name: one, cluster: {server: 'https://first'}}]\n",
        );
        let second = write(
            "second",
            "current-context: c\nclusters: [{name: one, cluster: {server: 'https://second'}}]\n\
             users: [{name: me, user: {tokenFile: token}}]\n",
        );
        let missing = directory.path().join("missing");
        let merged = read(&[missing.clone(), first, second], Missing::IsSkipped).unwrap();
        let chosen = choose(&merged, &ClusterFlags::default()).unwrap();
        assert_eq!(chosen.cluster.server.as_deref(), Some("https://first"));
        // Relative to the file that says so.
        let token = directory.path().join("token");
        assert_eq!(chosen.user.token_file.as_deref(), token.to_str());

        let failure = read(std::slice::from_ref(&missing), Missing::IsAnError).unwrap_err();
        assert!(
            failure.message().contains("missing"),
            "{}",
            failure.message()
        );
        let broken = write("broken", "clusters: {");
        assert!(read(&[broken], Missing::IsSkipped).is_err());
        assert!(is_empty(&read(&[missing], Missing::IsSkipped).unwrap()));
    }
}
