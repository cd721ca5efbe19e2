//! A little of the shell's grammar: which commands a script has, and their words.

use std::iter::Peekable;
use std::str::Chars;

/// The commands of a script, each as its words. Quotes, comments, pipes, redirections, here-documents and lines that go on are
/// understood; what is substituted stays as it is written.
pub fn commands(script: &str) -> Vec<Vec<String>> {
    // With it, the last command ends as all others do.
    let script = format!("{script}\n");
    let mut reader = Reader::default();
    let mut chars = script.chars().peekable();
    while let Some(c) = chars.next() {
        reader.take(c, &mut chars);
    }
    reader.commands
}

#[derive(Default)]
struct Reader {
    commands: Vec<Vec<String>>,
    /// Of the command that is being read.
    words: Vec<String>,
    /// That is being read.
    word: Option<String>,
    /// What the next word is, if not one of a command.
    next: Next,
    /// Delimiter of the document that starts in the next line.
    document: Option<String>,
}

#[derive(Clone, Copy, Default)]
enum Next {
    #[default]
    Word,
    File,
    Delimiter,
}

impl Reader {
    fn take(&mut self, c: char, chars: &mut Peekable<Chars<'_>>) {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(next) => self.word.get_or_insert_default().push(next),
            },
            '\'' => {
                let quoted = self.word.get_or_insert_default();
                quoted.extend(chars.by_ref().take_while(|next| *next != '\''));
            }
            '"' => {
                let quoted = self.word.get_or_insert_default();
                while let Some(next) = chars.next() {
                    match next {
                        '"' => break,
                        '\\' => quoted.extend(chars.next()),
                        next => quoted.push(next),
                    }
                }
            }
            '$' if chars.peek() == Some(&'(') => self.substitution(chars),
            '#' if self.word.is_none() => while chars.next_if(|next| *next != '\n').is_some() {},
            '<' if chars.next_if_eq(&'<').is_some() => {
                self.end_word();
                chars.next_if_eq(&'-');
                self.next = Next::Delimiter;
            }
            // `<(command)`: a command of its own.
            '<' if chars.next_if_eq(&'(').is_some() => self.end_command(),
            '>' | '<' => {
                // `2>` and `2>&1`
                let number = |text: &str| text.chars().all(|c| c.is_ascii_digit());
                if self.word.as_deref().is_some_and(number) {
                    self.word = None;
                }
                self.end_word();
                chars.next_if_eq(&'>');
                chars.next_if_eq(&'&');
                self.next = Next::File;
            }
            '|' | '&' | ';' | '(' | ')' => self.end_command(),
            '\n' => {
                self.end_command();
                if let Some(delimiter) = self.document.take() {
                    skip_document(chars, &delimiter);
                }
            }
            c if c.is_whitespace() => self.end_word(),
            c => self.word.get_or_insert_default().push(c),
        }
    }

    /// `$(…)` stays as it is.
    fn substitution(&mut self, chars: &mut Peekable<Chars<'_>>) {
        let text = self.word.get_or_insert_default();
        text.push('$');
        let mut depth = 0;
        for next in chars.by_ref() {
            text.push(next);
            match next {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else {
            return;
        };
        match std::mem::take(&mut self.next) {
            Next::Word => self.words.push(word),
            Next::File => {}
            Next::Delimiter => self.document = Some(word),
        }
    }

    /// Ends a command; what only surrounds it is left out.
    fn end_command(&mut self) {
        self.end_word();
        let mut command = std::mem::take(&mut self.words);
        let around = |word: &str| {
            let is_assignment = word
                .split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
            let words = [
                "!", "time", "watch", "if", "then", "else", "while", "do", "exec", "source",
            ];
            is_assignment || words.contains(&word)
        };
        while command.first().is_some_and(|word| around(word)) {
            command.remove(0);
        }
        if !command.is_empty() {
            self.commands.push(command);
        }
    }
}

fn skip_document(chars: &mut Peekable<Chars<'_>>, delimiter: &str) {
    while chars.peek().is_some() {
        let line: String = chars.by_ref().take_while(|next| *next != '\n').collect();
        if line.trim_start_matches('\t') == delimiter {
            break;
        }
    }
}

#[test]
fn a_script_is_read_as_a_shell_reads_it() {
    let script = "A=b kubectl ark install --storage 's3://b?c=d&e=f' \\\n  -n ark # why\nx=$(a | b) c 2>&1 | d \"e f\" > g && h\n\
                  kubectl apply -f - <<'END'\nkubectl ark no\nEND\nsource <(i j)\n";
    let expected: [&[&str]; 6] = [
        &[
            "kubectl",
            "ark",
            "install",
            "--storage",
            "s3://b?c=d&e=f",
            "-n",
            "ark",
        ],
        &["x=$(a | b)", "c"],
        &["d", "e f"],
        &["h"],
        &["kubectl", "apply", "-f", "-"],
        &["i", "j"],
    ];
    assert_eq!(commands(script), expected);
}
