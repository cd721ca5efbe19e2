use super::*;

/// A tar.gz of paths and contents.
fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut builder = tar::Builder::new(gzip);
    for (path, body) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(body.len() as u64);
        // Not by the builder, which refuses the paths that must be refused.
        let bytes = path.as_bytes();
        header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
        header.set_cksum();
        builder.append(&header, body.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn object(version: &str, kind: &str, namespace: Option<&str>, name: &str) -> String {
    let namespace = namespace.map_or(String::new(), |n| format!(r#""namespace":"{n}","#));
    format!(
        r#"{{"apiVersion":"{version}","kind":"{kind}","metadata":{{{namespace}"name":"{name}"}}}}"#
    )
}

fn map(namespace: &str, name: &str) -> String {
    object("v1", "ConfigMap", Some(namespace), name)
}

type Objects = Vec<(String, String, String)>;

/// Types as `resource apiVersion kind`, and the objects read back from the spool.
fn spooled(archive: &[u8], served: &[&str]) -> Result<(Vec<String>, Objects), ForeignError> {
    let mut spool = Vec::new();
    let served: Vec<String> = served.iter().map(|&version| version.into()).collect();
    let contents = super::spool(archive, &mut spool, |_| served.clone())?;
    let footer = crate::archive::footer::Footer {
        head: crate::archive::footer::Head {
            types: contents.types,
            ..Default::default()
        },
        members: contents.members,
    };
    let mut objects = Vec::new();
    for member in &footer.members {
        let range = member.offset as usize..(member.offset + member.length) as usize;
        let opened = crate::archive::read::open_member(&spool[range], member, &footer).unwrap();
        for entry in opened.entries() {
            let body = String::from_utf8_lossy(entry.body).into_owned();
            let key = key(entry.namespace, entry.name);
            objects.push((member.resource.clone(), key, body));
        }
    }
    objects.sort();
    let items: u64 = footer.head.types.iter().map(|entry| entry.items).sum();
    assert_eq!(items, objects.len() as u64);
    let types = footer.head.types.iter();
    let types = types.map(|entry| {
        let unsorted = if entry.unsorted { " unsorted" } else { "" };
        format!(
            "{} {} {}{unsorted}",
            entry.resource, entry.api_version, entry.kind
        )
    });
    Ok((types.collect(), objects))
}

fn why(entries: &[(&str, &str)]) -> String {
    spooled(&archive(entries), &[]).unwrap_err().to_string()
}

#[test]
fn every_layout_is_read() {
    let node = object("v1", "Node", None, "n");
    for [namespaced, cluster] in [
        [
            "resources/configmaps/namespaces/a/m.json",
            "resources/nodes/cluster/n.json",
        ],
        [
            "./resources/configmaps/namespaces/a/m.json",
            "./resources/nodes/cluster/n.json",
        ],
        ["namespaces/a/configmaps/m.json", "cluster/nodes/n.json"],
        [
            "resources/configmaps/v1-preferredversion/namespaces/a/m.json",
            "resources/nodes/v1-preferredversion/cluster/n.json",
        ],
    ] {
        let bytes = archive(&[(namespaced, &map("a", "m")), (cluster, &node)]);
        let (types, objects) = spooled(&bytes, &[]).unwrap();
        assert_eq!(types, ["configmaps v1 ConfigMap", "nodes v1 Node"]);
        assert_eq!(
            objects,
            [
                ("configmaps".into(), "a/m".into(), map("a", "m")),
                ("nodes".into(), "n".into(), node.clone()),
            ]
        );
    }
}

#[test]
fn b4_p8_p10_an_archive_without_objects_has_none() {
    for entries in [&[][..], &[("metadata/version", "1.1.0\n")]] {
        assert_eq!(spooled(&archive(entries), &[]).unwrap(), (vec![], vec![]));
    }
}

#[test]
fn p10_types_of_any_group_and_names_of_any_kind_are_read() {
    let role = object(
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        None,
        "system:node..x",
    );
    let bytes = archive(&[(
        "resources/clusterroles.rbac.authorization.k8s.io/cluster/system:node..x.json",
        &role,
    )]);
    let (types, objects) = spooled(&bytes, &[]).unwrap();
    assert_eq!(
        types,
        ["clusterroles.rbac.authorization.k8s.io rbac.authorization.k8s.io/v1 ClusterRole"]
    );
    assert_eq!(objects[0].1, "system:node..x");
}

#[test]
fn one_version_of_each_type_is_kept() {
    let of = |version: &str| object(&format!("x.io/{version}"), "Thing", Some("a"), "t");
    let [v1, v2] = [of("v1"), of("v2beta1")];
    let bytes = archive(&[
        ("resources/things.x.io/namespaces/a/t.json", &v1),
        (
            "resources/things.x.io/v1-preferredversion/namespaces/a/t.json",
            &v1,
        ),
        ("resources/things.x.io/v2beta1/namespaces/a/t.json", &v2),
    ]);
    for (served, version, body) in [
        (&["v1", "v2beta1"][..], "v1", &v1),
        (&["v2beta1", "v1"], "v2beta1", &v2),
        (&["v3", "v2beta1"], "v2beta1", &v2),
        (&["v3"], "v1", &v1),
        (&[], "v1", &v1),
    ] {
        let (types, objects) = spooled(&bytes, served).unwrap();
        assert_eq!(types, [format!("things.x.io x.io/{version} Thing")]);
        assert_eq!(
            objects,
            [("things.x.io".into(), "a/t".into(), body.clone())]
        );
    }
}

#[test]
fn objects_of_a_plain_directory_are_not_lost_for_a_version() {
    let (a, b) = (map("a", "a"), map("a", "b"));
    let why = why(&[
        ("resources/configmaps/namespaces/a/a.json", &a),
        (
            "resources/configmaps/v1-preferredversion/namespaces/a/a.json",
            &a,
        ),
        ("resources/configmaps/namespaces/a/b.json", &b),
    ]);
    assert!(
        why.contains("has 2 objects, but its preferred version has 1"),
        "{why}"
    );
}

#[test]
fn b5_bad_json_of_one_object_is_that_objects_error() {
    let good = map("a", "good");
    let bytes = archive(&[
        (
            "resources/configmaps/namespaces/a/bad.json",
            "{\"metadata\":",
        ),
        ("resources/configmaps/namespaces/a/good.json", &good),
        ("resources/configmaps/namespaces/a/none.json", "7"),
        ("resources/things.x.io/v2/cluster/x.json", ""),
    ]);
    let (types, objects) = spooled(&bytes, &[]).unwrap();
    assert_eq!(types, ["configmaps v1 ConfigMap", "things.x.io x.io/v2 "]);
    assert_eq!(objects.len(), 4);
}

#[test]
fn p8_p9_paths_that_lead_elsewhere_are_refused() {
    for path in [
        "../escape.json",
        "/resources/configmaps/namespaces/a/m.json",
        "resources/../configmaps/namespaces/a/m.json",
        "resources/configmaps/namespaces/../m.json",
        "resources/configmaps/namespaces/a/...json/../m.json",
        "resources/configmaps/namespaces/a\\b/m.json",
        "resources/configmaps/namespaces/a/..\\m.json",
    ] {
        let why = why(&[(path, "{}")]);
        assert!(
            why.contains("leads out of") && why.contains("entry"),
            "{path}: {why}"
        );
    }
    for path in [
        "",
        "resources",
        "resources/configmaps/namespaces/a/.json",
        "resources/configmaps/namespaces/a/..json",
        "resources/configmaps/namespaces//m.json",
        "resources//namespaces/a/m.json",
        "resources/configmaps/namespaces/a/m.yaml",
        "resources/configmaps/v1/x/namespaces/a/m.json",
        "resources/config maps/namespaces/a/m.json",
        "resources/configmaps/-preferredversion/namespaces/a/m.json",
        "metadata/other",
        "readme.json",
    ] {
        let why = why(&[(path, "{}")]);
        assert!(
            why.contains("not where a backup has objects"),
            "{path:?}: {why}"
        );
    }
}

#[test]
fn entries_that_are_not_what_their_path_says_are_refused() {
    for (body, says) in [
        (map("a", "other"), "called \"other\""),
        (map("b", "m"), "of namespace \"b\""),
        (object("v1", "ConfigMap", None, "m"), "of namespace \"\""),
    ] {
        let why = why(&[("resources/configmaps/namespaces/a/m.json", &body)]);
        assert!(why.contains(says) && why.contains("a/m.json"), "{why}");
    }
    let one = map("a", "m");
    let twice = why(&[
        ("resources/configmaps/namespaces/a/m.json", &one),
        ("./resources/configmaps/namespaces/a/m.json", &one),
    ]);
    assert!(twice.contains("there twice"), "{twice}");
    let scopes = why(&[
        ("resources/configmaps/namespaces/a/m.json", &one),
        (
            "resources/configmaps/cluster/m.json",
            &object("v1", "ConfigMap", None, "m"),
        ),
    ]);
    assert!(
        scopes.contains("both in namespaces and of the cluster"),
        "{scopes}"
    );
    let format = why(&[("metadata/version", "2.0.0\n")]);
    assert!(format.contains("layout version \"2.0.0\""), "{format}");
}

#[test]
fn truncation_and_flipped_bits_are_found() {
    let bytes = archive(&[
        ("metadata/version", "1.1.0\n"),
        ("resources/configmaps/namespaces/a/m.json", &map("a", "m")),
    ]);
    let whole = spooled(&bytes, &[]).unwrap();
    for length in 0..bytes.len() {
        assert!(spooled(&bytes[..length], &[]).is_err(), "{length}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        // The header has a time and a system that say nothing, and deflate ends with bits that do not either.
        if let Ok(read) = spooled(&damaged, &[]) {
            assert!(read == whole, "{at}");
        }
    }
    assert!(spooled(b"", &[]).is_err());
    assert!(spooled(b"not gzip at all", &[]).is_err());
}

#[test]
fn p9_a_bomb_is_refused_before_it_goes_off() {
    let zeros = " ".repeat(40 << 20);
    let names: Vec<String> = (0..8)
        .map(|n| format!("resources/configmaps/namespaces/a/m{n}.json"))
        .collect();
    let entries: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), zeros.as_str()))
        .collect();
    let bytes = archive(&entries);
    let why = spooled(&bytes, &[]).err().unwrap().to_string();
    assert!(why.contains("unpacks to more than"), "{why}");
}

#[test]
fn objects_in_any_order_of_many_types_are_all_kept() {
    let objects: Vec<(String, String)> = (0..6000)
        .map(|n| {
            let name = format!("o{:05}", (n * 7919) % 6000);
            let body = format!(
                r#"{{"apiVersion":"x.io/v1","kind":"T","metadata":{{"name":"{name}"}},"x":"{}"}}"#,
                "y".repeat(n % 3000)
            );
            (
                format!("resources/t{}.x.io/cluster/{name}.json", n % 300),
                body,
            )
        })
        .collect();
    let entries: Vec<(&str, &str)> = objects
        .iter()
        .map(|(path, body)| (path.as_str(), body.as_str()))
        .collect();
    let (types, found) = spooled(&archive(&entries), &[]).unwrap();
    assert_eq!(types.len(), 300);
    assert!(types.iter().any(|entry| entry.ends_with("unsorted")));
    assert_eq!(found.len(), 6000);
}

#[test]
fn a_full_disk_says_how_far_it_came() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let bytes = archive(&[("resources/configmaps/namespaces/a/m.json", &map("a", "m"))]);
    let error = super::spool(&bytes[..], &mut Full, |_| Vec::new()).unwrap_err();
    assert!(
        matches!(error, ForeignError::Spool { read, .. } if read > 0),
        "{error:?}"
    );
}
