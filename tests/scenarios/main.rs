//! All scenarios in one binary: they share servers, and one binary links the SDKs once.
//!
//! Each module gives its scenarios as `trials()`. To add a file: `mod`, and a line in `main`.

// Scenarios are tests, though this target is built without the test harness that lints go by.
#![allow(clippy::unwrap_used)]

mod backup;
mod cron;
mod csi;
mod csi_snapshots;
mod deletion;
mod deletion_faults;
mod diff;
mod docs;
#[cfg(target_os = "linux")]
mod doctor;
mod ebs;
mod expire;
mod expire_faults;
mod faults;
mod foreign;
#[cfg(target_os = "linux")]
mod gitops;
#[cfg(target_os = "linux")]
mod guides;
mod harness;
#[cfg(target_os = "linux")]
mod hooks;
#[cfg(target_os = "linux")]
mod hooks_restore;
mod instant;
#[cfg(target_os = "linux")]
mod kubeconfig;
mod live;
#[cfg(target_os = "linux")]
mod node;
mod odd;
#[cfg(target_os = "linux")]
mod packaging;
mod parts;
mod place;
#[cfg(target_os = "linux")]
mod plugin;
#[cfg(target_os = "linux")]
mod plugin_housekeeping;
mod plugin_install;
#[cfg(target_os = "linux")]
mod plugin_names;
mod plugin_output;
#[cfg(target_os = "linux")]
mod plugin_restore;
#[cfg(target_os = "linux")]
mod plugin_schedule;
mod plugin_shell;
#[cfg(target_os = "linux")]
mod plugin_status;
#[cfg(target_os = "linux")]
mod plugin_volumes;
#[cfg(target_os = "linux")]
mod pod_settings;
mod proxy;
#[cfg(target_os = "linux")]
mod reading;
mod restore;
mod restore_choices;
mod restore_existing;
mod restore_faults;
#[cfg(target_os = "linux")]
mod restore_only;
mod restore_order;
mod restore_preview;
mod restore_records;
mod restore_throttled;
mod round_trip;
mod schedule_ticks;
mod selection;
mod store;
mod sync;
mod sync_faults;
mod volumes_backup;
#[cfg(target_os = "linux")]
mod volumes_formats;
mod volumes_orphans;
#[cfg(target_os = "linux")]
mod volumes_pods;
mod volumes_restore;
#[cfg(target_os = "linux")]
mod volumes_restore_faults;
mod volumes_sweep;
mod world;

fn main() {
    // Credentials come from the environment, which is one for all scenarios here: some start this program again.
    if let Some(exit) = ebs::again() {
        std::process::exit(exit);
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let mut trials = Vec::new();
    trials.extend(harness::trials());
    trials.extend(proxy::trials());
    trials.extend(store::trials());
    trials.extend(backup::trials());
    trials.extend(instant::trials());
    trials.extend(odd::trials());
    trials.extend(faults::trials());
    trials.extend(live::trials());
    trials.extend(foreign::trials());
    trials.extend(parts::trials());
    trials.extend(restore::trials());
    trials.extend(restore_choices::trials());
    trials.extend(restore_existing::trials());
    trials.extend(restore_order::trials());
    trials.extend(restore_throttled::trials());
    trials.extend(restore_faults::trials());
    trials.extend(restore_preview::trials());
    trials.extend(restore_records::trials());
    trials.extend(round_trip::trials());
    trials.extend(cron::trials());
    trials.extend(csi::trials());
    trials.extend(csi_snapshots::trials());
    trials.extend(schedule_ticks::trials());
    trials.extend(selection::trials());
    trials.extend(diff::trials());
    trials.extend(ebs::trials());
    trials.extend(volumes_restore::trials());
    trials.extend(sync::trials());
    trials.extend(expire::trials());
    trials.extend(expire_faults::trials());
    trials.extend(deletion::trials());
    trials.extend(deletion_faults::trials());
    trials.extend(sync_faults::trials());
    trials.extend(volumes_sweep::trials());
    trials.extend(volumes_backup::trials());
    trials.extend(volumes_orphans::trials());
    #[cfg(target_os = "linux")]
    {
        trials.extend(doctor::trials());
        trials.extend(node::trials());
        trials.extend(plugin::trials());
        trials.extend(plugin_names::trials());
        trials.extend(plugin_output::trials());
        trials.extend(plugin_restore::trials());
        trials.extend(gitops::trials());
        trials.extend(guides::trials());
        trials.extend(pod_settings::trials());
        trials.extend(docs::trials());
        trials.extend(plugin_housekeeping::trials());
        trials.extend(plugin_install::trials());
        trials.extend(plugin_schedule::trials());
        trials.extend(plugin_status::trials());
        trials.extend(plugin_volumes::trials());
        trials.extend(plugin_shell::trials());
        trials.extend(kubeconfig::trials());
        trials.extend(packaging::trials());
        trials.extend(hooks::trials());
        trials.extend(hooks_restore::trials());
        trials.extend(reading::trials());
        trials.extend(restore_only::trials());
        trials.extend(volumes_formats::trials());
        trials.extend(volumes_restore_faults::trials());
        trials.extend(volumes_pods::trials());
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    world::end();
    conclusion.exit();
}
