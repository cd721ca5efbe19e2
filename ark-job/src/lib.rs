//! The operations of `kubectl ark`: backup and restore of a Kubernetes cluster, run once and done.
//!
//! In layers; imports go down only. *Operations* read like the manual, *edges* touch the world, *leaves* only compute,
//! and the *contract* is what the plugin and the Jobs agree on. See docs/design.md.

// operations
pub mod backup;
pub mod delete;
pub mod diff;
pub mod doctor;
pub mod expire;
pub mod fetch;
pub mod list;
pub mod restore;
pub mod run;
pub mod show;
pub mod sync;
pub mod volume_list;
// what operations share
pub mod context;
pub mod failed_log;
pub mod holdings;
pub mod kept;
pub mod location;
pub mod mode;
pub mod read_only;
pub mod removal;
pub mod rights;
// edges
mod aws;
pub mod cluster;
pub mod log;
pub mod records;
pub mod repository;
pub mod stdout;
pub mod store;
pub mod tombstone;
pub mod volumes;
// leaves
pub mod archive;
pub mod cron;
pub mod error;
pub mod filter;
pub mod foreign;
pub mod hooks;
pub mod identity;
pub mod item;
pub mod layout;
pub mod lean;
pub mod marker;
pub mod modifiers;
pub mod pod_spec;
pub mod report;
pub mod schedule;
pub mod selector;
pub mod velero_backup;
pub mod yaml;
// contract
pub mod api;
pub mod args;
pub mod exit;
