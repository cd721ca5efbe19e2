//! What an operation makes a record of: backups, or restores.

/// Backups or restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    /// Backups
    Backup,
    /// Restores
    Restore,
}

impl Noun {
    /// The word, as in commands, labels and names of Jobs.
    pub fn word(self) -> &'static str {
        match self {
            Noun::Backup => "backup",
            Noun::Restore => "restore",
        }
    }
}
