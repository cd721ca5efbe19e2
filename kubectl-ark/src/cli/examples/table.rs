//! The examples in help pages. (Also compiled into the scenarios, which run them: nothing but text here.)

/// What somebody wants, and the command for it.
pub type Example = (&'static str, &'static str);

/// The examples of each command, by its path noun first: those of `get backups` are those of `backup get`.
pub const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "install",
        &[
            (
                "Into the cluster, with a bucket that pods reach by a role of their own",
                "kubectl ark install --storage 's3://my-bucket/one?region=eu-west-1'",
            ),
            (
                "Upgrade: everything stays as it was set, but for the image",
                "kubectl ark install",
            ),
        ],
    ),
    (
        "uninstall",
        &[
            (
                "Ask first, and keep Backup, Restore and location resources",
                "kubectl ark uninstall",
            ),
            (
                "Everything but what is in storage, without being asked",
                "kubectl ark uninstall --crds --yes",
            ),
        ],
    ),
    (
        "backup create",
        &[
            (
                "All of the cluster, and wait for it",
                "kubectl ark backup create everything --wait",
            ),
            (
                "Into a directory, without anything installed in the cluster",
                "kubectl ark backup create laptop --local",
            ),
            (
                "One namespace with what it needs, kept for a week",
                "kubectl ark backup create web --include-namespaces shop --ttl 168h",
            ),
        ],
    ),
    (
        "backup get",
        &[
            (
                "Backups, with size and volumes",
                "kubectl ark backup get -o wide",
            ),
            (
                "What is in the bucket, whatever the cluster knows of it",
                "kubectl ark backup get --location default",
            ),
        ],
    ),
    (
        "backup describe",
        &[
            (
                "What is in it, and what went wrong",
                "kubectl ark backup describe shop",
            ),
            (
                "With the names of all its objects",
                "kubectl ark backup describe shop --details",
            ),
        ],
    ),
    (
        "backup delete",
        &[
            (
                "Ask first; snapshots and files go",
                "kubectl ark backup delete old",
            ),
            (
                "All that are older than 60 days, without being asked",
                "kubectl ark backup delete --older-than 1440h --yes",
            ),
        ],
    ),
    (
        "backup undelete",
        &[
            (
                "Which deletions were cut off",
                "kubectl ark backup get --show-deleted",
            ),
            ("Take one back", "kubectl ark backup undelete cut"),
        ],
    ),
    (
        "backup logs",
        &[
            (
                "Of a backup that is done, from storage",
                "kubectl ark backup logs shop",
            ),
            ("As it is written", "kubectl ark backup logs first -f"),
        ],
    ),
    (
        "backup download",
        &[
            ("To shop.tar.gz", "kubectl ark backup download shop --force"),
            (
                "Through a pipe",
                "kubectl ark backup download shop -o - | tar tz",
            ),
        ],
    ),
    (
        "backup show",
        &[
            (
                "One object, as kubectl apply takes it",
                "kubectl ark backup show shop shop/deployments/web",
            ),
            (
                "As it was stored, in JSON",
                "kubectl ark backup show shop namespaces/shop --all-fields -o json",
            ),
        ],
    ),
    (
        "restore create",
        &[
            (
                "All of a backup; what exists is left as it is",
                "kubectl ark restore create shop --wait",
            ),
            (
                "Beside the original, from the newest backup of a schedule",
                "kubectl ark restore create --from-schedule nightly \\\n    --namespace-mappings shop:shop-copy",
            ),
        ],
    ),
    (
        "restore plan",
        &[
            (
                "What would be created, changed and left",
                "kubectl ark restore plan shop",
            ),
            (
                "The same if what is different were changed",
                "kubectl ark restore plan shop --existing-resource-policy update",
            ),
        ],
    ),
    (
        "restore get",
        &[
            ("All restores", "kubectl ark restore get"),
            ("Their names", "kubectl ark restore get -o name"),
        ],
    ),
    (
        "restore describe",
        &[
            (
                "What came of it, with warnings and errors",
                "kubectl ark restore describe again",
            ),
            ("The same, verb first", "kubectl ark describe restore again"),
        ],
    ),
    (
        "restore delete",
        &[
            (
                "Ask first; its log and results go, what was restored stays",
                "kubectl ark restore delete again",
            ),
            (
                "Verb first, without being asked",
                "kubectl ark delete restore other --yes",
            ),
        ],
    ),
    (
        "restore logs",
        &[
            ("Its log", "kubectl ark restore logs again"),
            ("As it is written", "kubectl ark restore logs again -f"),
        ],
    ),
    (
        "schedule create",
        &[
            (
                "Every night at three, kept for 30 days; the first at once",
                "kubectl ark schedule create nightly --schedule '0 3 * * *' --ttl 720h",
            ),
            (
                "Every six hours, one namespace, the newest ten at least",
                "kubectl ark schedule create often --schedule '@every 6h' \\\n    --include-namespaces shop --keep-last 10",
            ),
        ],
    ),
    (
        "schedule get",
        &[
            ("All, with last and next backup", "kubectl ark schedule get"),
            ("The same, verb first", "kubectl ark get schedules"),
        ],
    ),
    (
        "schedule describe",
        &[
            (
                "Last, next and last good backup, failures in a row",
                "kubectl ark schedule describe nightly",
            ),
            (
                "The same, verb first",
                "kubectl ark describe schedule nightly",
            ),
        ],
    ),
    (
        "schedule pause",
        &[
            ("One", "kubectl ark schedule pause nightly"),
            ("All", "kubectl ark schedule pause --all"),
        ],
    ),
    (
        "schedule unpause",
        &[
            ("One", "kubectl ark schedule unpause nightly"),
            ("All", "kubectl ark schedule unpause --all"),
        ],
    ),
    (
        "schedule delete",
        &[
            ("Its backups stay", "kubectl ark schedule delete often"),
            (
                "Those with a label",
                "kubectl ark schedule delete -l team=gone",
            ),
        ],
    ),
    (
        "schedule run",
        &[
            (
                "A backup now, and wait for it",
                "kubectl ark schedule run nightly --wait",
            ),
            (
                "Only create its Job, and print its name",
                "kubectl ark schedule run nightly -o name",
            ),
        ],
    ),
    (
        "location get",
        &[
            (
                "Where backups are, and whether it was reached",
                "kubectl ark location get",
            ),
            ("With more columns", "kubectl ark location get -o wide"),
        ],
    ),
    (
        "location describe",
        &[
            ("All of one", "kubectl ark location describe default"),
            (
                "Of an Ark in another namespace",
                "kubectl ark location describe default -n heptio-ark",
            ),
        ],
    ),
    (
        "location create",
        &[
            (
                "A second bucket, in another region",
                "kubectl ark location create offsite \\\n    --storage 's3://other-bucket/one?region=us-east-2'",
            ),
            (
                "Another cluster's backups, only to restore from",
                "kubectl ark location create theirs --access-mode read-only \\\n    --storage 's3://my-bucket/two?region=eu-west-1'",
            ),
        ],
    ),
    (
        "location delete",
        &[
            (
                "The resource; what is in storage stays",
                "kubectl ark location delete offsite",
            ),
            ("The same, verb first", "kubectl ark delete location theirs"),
        ],
    ),
    (
        "get all",
        &[
            ("Everything of Ark's", "kubectl ark get all"),
            ("Its names", "kubectl ark get all -o name"),
        ],
    ),
    (
        "diff",
        &[
            (
                "What has changed in the cluster since",
                "kubectl ark diff shop",
            ),
            (
                "Between two backups",
                "kubectl ark diff first shop --include-namespaces shop",
            ),
        ],
    ),
    (
        "expire",
        &[
            (
                "What would be deleted, what stays, and why",
                "kubectl ark expire --dry-run",
            ),
            ("Delete it", "kubectl ark expire"),
        ],
    ),
    (
        "sync",
        &[
            (
                "See at once what another cluster has backed up",
                "kubectl ark sync",
            ),
            ("In one location", "kubectl ark sync --location default"),
        ],
    ),
    (
        "volumes",
        &[
            ("All snapshots, and their state now", "kubectl ark volumes"),
            (
                "Those that no backup records",
                "kubectl ark volumes --orphans",
            ),
        ],
    ),
    (
        "restore-only on",
        &[
            (
                "Before the disaster gets worse",
                "kubectl ark restore-only on",
            ),
            ("What it did", "kubectl ark restore-only status"),
        ],
    ),
    (
        "restore-only off",
        &[
            (
                "Schedules go on; see what would expire",
                "kubectl ark restore-only off",
            ),
            (
                "Expiry goes on, too",
                "kubectl ark restore-only off --resume-expiry",
            ),
        ],
    ),
    (
        "restore-only status",
        &[
            ("Which mode it is", "kubectl ark restore-only status"),
            (
                "Of an Ark in another namespace",
                "kubectl ark restore-only status -n heptio-ark",
            ),
        ],
    ),
    (
        "status",
        &[
            ("Is all well? If not, what to do", "kubectl ark status"),
            ("For a monitor", "kubectl ark status -o json"),
        ],
    ),
    (
        "doctor",
        &[
            ("Would a backup and a restore work?", "kubectl ark doctor"),
            (
                "With an archive for whoever helps",
                "kubectl ark doctor --bundle=ark-support.tar.gz",
            ),
        ],
    ),
    (
        "completion bash",
        &[
            (
                "Into a file that ~/.bashrc sources",
                "kubectl ark completion bash > ~/.kubectl-ark.bash",
            ),
            ("Only look at it", "kubectl ark completion bash"),
        ],
    ),
    (
        "completion zsh",
        &[
            (
                "Into a file that ~/.zshrc sources",
                "kubectl ark completion zsh > ~/.kubectl-ark.zsh",
            ),
            ("Only look at it", "kubectl ark completion zsh"),
        ],
    ),
    (
        "completion fish",
        &[
            (
                "Where fish looks for it",
                "kubectl ark completion fish > ~/.config/fish/completions/kubectl-ark.fish",
            ),
            ("Only look at it", "kubectl ark completion fish"),
        ],
    ),
    (
        "completion powershell",
        &[
            (
                "Into a file that $PROFILE sources",
                "kubectl ark completion powershell > kubectl-ark.ps1",
            ),
            ("Only look at it", "kubectl ark completion powershell"),
        ],
    ),
    (
        "completion install",
        &[
            (
                "Beside kubectl-ark: kubectl ark <TAB> completes, too",
                "kubectl ark completion install",
            ),
            (
                "Into another directory of PATH",
                "kubectl ark completion install --dir ~/.local/bin",
            ),
        ],
    ),
    (
        "version",
        &[
            (
                "Of the plugin and of what is installed",
                "kubectl ark version",
            ),
            (
                "Of the plugin, without asking a cluster",
                "kubectl ark version --client",
            ),
        ],
    ),
];
