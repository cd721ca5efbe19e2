//! Restore.
pub mod prepare;
pub mod selector;
