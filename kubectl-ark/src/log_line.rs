//! Lines of `ark-job`'s log, as pods print them: `time="…" level=info msg="…"`.

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// `info`, `warning`, …
    pub level: String,
    /// What is said.
    pub message: String,
}

/// Reads a line; `None` when it is none of the log.
pub fn parse(line: &str) -> Option<LogLine> {
    if !line.starts_with("time=") {
        return None;
    }
    let (_, rest) = line.split_once(" level=")?;
    let (level, message) = rest.split_once(" msg=")?;
    Some(LogLine {
        level: level.to_owned(),
        // The log quotes as Rust does, which JSON reads but for what nobody writes into a message.
        message: serde_json::from_str(message).unwrap_or_else(|_| message.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_are_told_from_others() {
        let line = "time=\"2026-11-23T20:15:02Z\" level=warning msg=\"a \\\"b\\\" is gone\"";
        let read = parse(line).unwrap();
        assert_eq!(read.level, "warning");
        assert_eq!(read.message, "a \"b\" is gone");
        for other in [
            "error: x",
            "hint: level=info msg=y",
            "",
            "3 backups deleted",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
